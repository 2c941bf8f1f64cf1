"""Optuna studies as this search needs them: where they are kept, what proposes, and what stops a trial early."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import wilcoxon

from tl_core.errors import InputError

HEARTBEAT, GRACE = 10, 40
"""Seconds between signs of life of a trial, and without one until it is given to somebody else."""

LAID_DOWN = "laid_down"
"""The study's attribute with the points that every third trial takes, in turn."""

_SETTING = "setting"
_EVERY = 3
_RETRIES = 3
_PATIENCE = 60  # seconds that SQLite waits for the lock of another process
_JOURNAL = "journal:"


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
    return optuna.create_study(
        study_name=name,
        storage=open_storage(storage),
        direction="maximize",
        load_if_exists=True,
        sampler=TrialSeededSampler(seed),
        pruner=PairedPruner() if prune else optuna.pruners.NopPruner(),
    )


def open_storage(storage: str | None) -> optuna.storages.BaseStorage | None:
    """Open where studies are kept: an SQLAlchemy URL, `journal:` and a path, or None for memory."""
    if storage is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _open(storage)


def _open(storage: str) -> optuna.storages.BaseStorage:
    if storage.startswith(_JOURNAL):
        backend = JournalFileBackend(storage.removeprefix(_JOURNAL))
        return optuna.storages.JournalStorage(backend)
    is_sqlite = sqlalchemy.make_url(storage).get_backend_name() == "sqlite"
    opened = optuna.storages.RDBStorage(
        storage,
        engine_kwargs={"connect_args": {"timeout": _PATIENCE}} if is_sqlite else {},
        heartbeat_interval=HEARTBEAT,
        grace_period=GRACE,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES),
    )
    if is_sqlite:
        _lock_when_reading(opened.engine)
    return opened


def _lock_when_reading(engine: sqlalchemy.Engine) -> None:
    """Take SQLite's lock at the start of a transaction, not at its first write.

    SQLite ignores SELECT ... FOR UPDATE, so that two processes could both read that a trial waits and both begin it.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def check_study_settings(study: optuna.Study, setting: Mapping[str, object]) -> None:
    """Write down what a study's scores depend on beside the choices of a trial, or see that it is still the same.

    Args:
        setting: such as the episodes and the network; JSON values.

    Raises:
        InputError: the study was begun in another setting.
    """
    begun: Mapping[str, object] = study.user_attrs.get(_SETTING, setting)
    if _SETTING not in study.user_attrs:
        study.set_user_attr(_SETTING, setting)
    for name, value in setting.items():
        if begun.get(name) != value:
            raise InputError(
                f"study {study.study_name} was begun with {name}={_difference(begun.get(name), value)}; "
                "give another study name"
            )


def _difference(begun: object, now: object) -> str:
    """The first value that differs, in words."""
    if isinstance(begun, Mapping) and isinstance(now, Mapping):
        for name in sorted({*begun, *now}):
            if begun.get(name) != now.get(name):
                return f"{name}={begun.get(name)}, not {now.get(name)}"
    return f"{begun}, not {now}"
