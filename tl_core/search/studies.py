"""Optuna studies as this search needs them: where they are kept, what proposes, and what stops a trial early."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import wilcoxon

from tl_core.errors import InputError
from tl_core.search.storages import open_storage, storage_troubles

LAID_DOWN = "laid_down"
"""The study's attribute with the points that every third trial takes, in turn."""

Direction = Literal["maximize", "minimize"]

_SETTING = "setting"
_EVERY = 3


class TrialSeededSampler(optuna.samplers.BaseSampler):
    """TPE (Bergstra et al., 2011) whose random numbers depend on the seed and the trial's number alone.

    So neither a resumed study nor two processes propose a point twice, and one process repeats itself exactly. Every
    third trial, the first among them, takes the next of the points that were laid down, while there are any: known
    recipes come first, and yet a short search looks elsewhere too.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._sampler = self._of_trial(0)
        self._given: Mapping[str, Any] = {}

    def _of_trial(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.default_rng([self._seed, number]).integers(2**31))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # In groups: a conditional space has no parameter that all trials share.
            return optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=8, multivariate=True, group=True, constant_liar=True
            )

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Start afresh."""
        points: Sequence[Mapping[str, Any]] = study.user_attrs.get(LAID_DOWN, ())
        turn, rest = divmod(trial.number, _EVERY)
        self._given = points[turn] if rest == 0 and turn < len(points) else {}
        self._sampler = self._of_trial(trial.number)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """Return the parameters that are sampled together."""
        return {} if self._given else self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """Sample it."""
        return {} if self._given else self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Sample one parameter alone."""
        if param_name in self._given:
            return self._given[param_name]
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


class PairedPruner(optuna.pruners.BasePruner):
    """Stops a trial that is behind the best complete one on the episodes that both were scored on (Wilcoxon, 1945).

    Optuna's own `WilcoxonPruner` also compares the mean so far with the best one's mean over all episodes, and where
    the first episodes happen to be easy it stops nobody for long (docs/experiments.md).
    """

    def __init__(self, p_threshold: float = 0.2, n_startup_steps: int = 4) -> None:
        self._p_threshold, self._n_startup_steps = p_threshold, n_startup_steps

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether to stop the trial."""
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not complete:
            return False
        best = max(complete, key=lambda t: float(t.value or 0.0)).intermediate_values
        behind = [best[step] - score for step, score in trial.intermediate_values.items() if step in best]
        if len(behind) < self._n_startup_steps or np.mean(behind) <= 0:
            return False
        return bool(wilcoxon(behind, alternative="greater", zero_method="zsplit").pvalue < self._p_threshold)


def build_study(name: str, storage: str | None, seed: int, *, prune: bool = True) -> optuna.Study:
    """Create a study, or open the one of this name, with the sampler and pruner of this search.

    Args:
        storage: as `open_storage` takes it.
        prune: whether trials that are clearly behind are stopped.
    """
    return open_study(
        name,
        storage,
        ("maximize",),
        sampler=TrialSeededSampler(seed),
        pruner=PairedPruner() if prune else optuna.pruners.NopPruner(),
    )


def open_study(name: str, storage: str | None, directions: Sequence[Direction], **settings: Any) -> optuna.Study:
    """Create a study, or open the one of this name if it has these directions.

    Args:
        storage: as `open_storage` takes it.
        settings: sampler and pruner.

    Raises:
        InputError: it has others: it is no study of this search; nothing is written into it.
    """
    kept = open_storage(storage)
    with storage_troubles(storage):
        opened = optuna.create_study(
            study_name=name, storage=kept, directions=[*directions], load_if_exists=True, **settings
        )
    found = tuple(direction.name.lower() for direction in opened.directions)
    if found != tuple(directions):
        raise _stranger(opened, f"one that is to {' and '.join(found)}")
    return opened


def _name_metrics(study: optuna.Study, names: Sequence[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(names))


def check_study_settings(
    study: optuna.Study, setting: Mapping[str, object], metrics: Sequence[str] = ("accuracy",)
) -> None:
    """Write down what a study's scores depend on beside the choices of a trial, or see that it is still the same.

    Args:
        metrics: names of what is maximised or minimised, as Optuna's own pages show them.
        setting: such as the episodes and the network; JSON values.

    Raises:
        InputError: the study was begun in another setting, or by another program.
    """
    begun = study.user_attrs.get(_SETTING, {})
    is_new = _SETTING not in study.user_attrs and not study.get_trials(deepcopy=False)
    if not is_new and (not isinstance(begun, Mapping) or not begun):
        raise _stranger(study, "one that another program began")
    if is_new:
        begun = setting
        study.set_user_attr(_SETTING, setting)
        _name_metrics(study, metrics)
    for name, value in setting.items():
        if begun.get(name) != value:
            raise InputError(
                f"study {study.study_name} was begun with {name}={_difference(begun.get(name), value)}; "
                "give another study name"
            )


def _stranger(study: optuna.Study, got: str) -> InputError:
    return InputError(f"expected in {study.study_name!r} a study of this command, got {got}; give another study name")


def _difference(begun: object, now: object) -> str:
    """The first value that differs, in words."""
    if isinstance(begun, Mapping) and isinstance(now, Mapping):
        for name in sorted({*begun, *now}):
            if begun.get(name) != now.get(name):
                return f"{name}={begun.get(name)}, not {now.get(name)}"
    return f"{begun}, not {now}"
