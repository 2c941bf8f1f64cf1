"""Search spaces, and the recipes of the literature that are tried first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import optuna

from tl_core.errors import InputError
from tl_core.heads.table import head_class
from tl_core.recipes.choices import Optimizer, TestViews
from tl_core.recipes.finetune import FinetuneRecipe
from tl_core.recipes.heads import few_shot_heads

FREEZE_ALL = "freeze_all"
"""The parameter that decides between a depth of 1 and a search for a lower one."""


_NO = "no_"
"""Before the name of a parameter: the one that decides between 0 and a range."""


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, on a logarithmic scale or not; or none of them but 0, which no such scale has."""

    low: float
    high: float
    log: bool = False
    or_zero: bool = False

    def suggest(self, trial: optuna.Trial, name: str) -> float | int:
        """Have a trial choose; where both ends are whole numbers, a whole number."""
        if self.or_zero and trial.suggest_categorical(_NO + name, (False, True)):
            return 0
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def including(self, value: Any) -> Range:
        """The same, widened to reach a value."""
        if self.log and value == 0:
            return replace(self, or_zero=True)
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def point(self, name: str, value: Any) -> dict[str, object]:
        """The choices that make a value, as a trial's parameters."""
        if not self.or_zero:
            return {name: value}
        return {_NO + name: True} if value == 0 else {_NO + name: False, name: value}


@dataclass(frozen=True)
class Choice:
    """One of several words."""

    options: tuple[str, ...]

    def suggest(self, trial: optuna.Trial, name: str) -> str:
        """Have a trial choose."""
        return str(trial.suggest_categorical(name, self.options))

    def point(self, name: str, value: Any) -> dict[str, object]:
        """The choices that make a value, as a trial's parameters."""
        return {name: value}

    def including(self, value: Any) -> Choice:
        """The same, with one more word."""
        return self if value in self.options else Choice((*self.options, value))


PARAMETERS: Mapping[str, Range | Choice] = {
    "freeze_depth": Range(0.0, 0.9),
    "augment": Choice(("crop", "dihedral", "flip", "none")),
    "test_views": Choice(get_args(TestViews)),
    "head": Choice(few_shot_heads()),
    "l2": Range(1e-4, 1e-1, log=True),
    "max_lr": Range(1e-5, 1e-1, log=True),
    "steps": Range(5, 80, log=True),
    "optimizer": Choice(get_args(Optimizer)),
    "weight_decay": Range(1e-5, 1e-1, log=True),
    "label_smoothing": Range(0.0, 0.3),
}
"""All that can be searched; a depth of 1 is the business of `FREEZE_ALL`."""

OF_TRAINING = ("max_lr", "steps", "optimizer", "weight_decay")
"""Parameters that exist only where something is trained: on a frozen backbone, some heads are solved."""

_LITERATURE: tuple[Mapping[str, object], ...] = (
    # Logistic regression on frozen features, with the support's flips and turns (Tian et al., 2020).
    {"freeze_depth": 1.0, "augment": "dihedral", "test_views": "dihedral", "head": "linear", "l2": 1e-3},
    # Cosine classifier on frozen features (Chen et al., 2019: Baseline++).
    {"freeze_depth": 1.0, "augment": "none", "head": "cosine", "max_lr": 1e-2, "optimizer": "sgd"},
    # The last blocks alone (Guo et al., 2020: Fine-tuning last-k), with the views that the base recipe trusts.
    {"freeze_depth": 0.8, "max_lr": 1e-3, "optimizer": "sgd"},
    # Everything, by SGD (Guo et al., 2020: Ft-all).
    {"freeze_depth": 0.0, "augment": "crop", "max_lr": 1e-2, "optimizer": "sgd"},
)


@dataclass(frozen=True)
class SearchSpace:
    """The parameters that a trial chooses; everything else comes from the base recipe."""

    parameters: Mapping[str, Range | Choice]

    def suggest_recipe(self, trial: optuna.Trial, base: FinetuneRecipe) -> FinetuneRecipe:
        """The base recipe with this trial's choices; parameters that would do nothing are not asked for."""
        recipe = base
        if "freeze_depth" in self.parameters:
            frozen = trial.suggest_categorical(FREEZE_ALL, (False, True))
            recipe = replace(recipe, freeze_depth=1.0) if frozen else self._choose("freeze_depth", trial, recipe)
        if "head" in self.parameters:
            recipe = self._choose("head", trial, recipe)
        for name in self._others(recipe):
            recipe = self._choose(name, trial, recipe)
        return recipe

    def point(self, recipe: FinetuneRecipe) -> dict[str, object]:
        """The choices that make this recipe, as a trial's parameters."""
        values = asdict(recipe)
        names = [name for name in ("freeze_depth", "head") if name in self.parameters] + self._others(recipe)
        point: dict[str, object] = {}
        for name in names:
            point |= self.parameters[name].point(name, values[name])
        if "freeze_depth" not in point:
            return point
        frozen = {FREEZE_ALL: recipe.freeze_depth == 1}
        return frozen | {name: value for name, value in point.items() if name != "freeze_depth" or value != 1}

    def _choose(self, name: str, trial: optuna.Trial, recipe: FinetuneRecipe) -> FinetuneRecipe:
        chosen: Any = self.parameters[name].suggest(trial, name)
        return replace(recipe, **{name: chosen})

    def _others(self, recipe: FinetuneRecipe) -> list[str]:
        """Names that mean something once depth and head are chosen."""
        solved = recipe.freeze_depth == 1 and head_class(recipe.head).is_solved
        decided = ("freeze_depth", "head", *(OF_TRAINING if solved else ()))
        return [name for name in self.parameters if name not in decided]

    def including(self, base: FinetuneRecipe) -> SearchSpace:
        """The space, widened where a recipe lies outside: the first trial must be one of its points.

        Raises:
            InputError: with this base there is nothing to choose.
        """
        values, point = asdict(base), self.point(base)
        if not point:
            raise InputError(
                f"searched is {'+'.join(self.parameters)}, but a linear head on a frozen backbone is solved, "
                "not trained; search freeze_depth too, or give a base recipe with a lower one"
            )
        wider = {name: v.including(values[name]) if name in point else v for name, v in self.parameters.items()}
        return SearchSpace(wider)

    def literature(self, base: FinetuneRecipe) -> list[FinetuneRecipe]:
        """Known recipes, as far as they can be said in this space; each once, and none that is the base."""
        known: list[FinetuneRecipe] = []
        for recipe in _LITERATURE:
            told = {name: value for name, value in recipe.items() if name in self.parameters}
            candidate = replace(base, **told)  # type: ignore[arg-type]
            if told and candidate != base and candidate not in known:
                known.append(candidate)
        return known

    def describe(self) -> dict[str, list[object]]:
        """As JSON values, to tell spaces apart."""
        return {
            name: [*values.options]
            if isinstance(values, Choice)
            else [values.low, values.high, *([0] if values.or_zero else [])]
            for name, values in self.parameters.items()
        }


def parse_space(names: str) -> SearchSpace:
    """The space of `max_lr+freeze_depth+augment`: names of `PARAMETERS` joined by +.

    Raises:
        InputError: no name, or one that cannot be searched.
    """
    told = [name for name in names.replace(" ", "").split("+") if name]
    unknown = [name for name in told if name not in PARAMETERS]
    if unknown or not told:
        got = f"unknown {', '.join(unknown)}" if unknown else "nothing"
        raise InputError(f"expected searched as {', '.join(PARAMETERS)}, joined by +, got {names!r} ({got})")
    return SearchSpace({name: values for name, values in PARAMETERS.items() if name in told})
