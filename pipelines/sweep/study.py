"""The Optuna study of a sweep: asked for trials, told what came of them, taken up again.

Only one process has a study open, so a trial that it finds running belongs to a dead one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from gan_core.config import fingerprint
from gan_core.sweep_settings import SweepSettings
from pipelines.sweep.space import SearchSpace

STUDY_FILE = "study.db"
STUDY_NAME = "sweep"
# Before so many finished trials nothing is pruned: the median of fewer says little.
TRIALS_BEFORE_PRUNING = 4
INDEX, OUTCOME, KIMG, SECONDS, REASON = "index", "outcome", "kimg", "seconds", "reason"

Outcome = Literal["complete", "pruned", "failed"]
STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class TrialRecord:
    """A trial that is over.

    Attributes:
        index: From 0; the first is the pipeline's own settings. Interrupted attempts do not count.
        outcome: `pruned` was given up, `failed` crashed.
        distance: The smallest that it reached, to the training images; None without a measurement.
        values: Of the swept settings, by their dotted keys.
        kimg: That it trained.
        seconds: That it trained.
        reason: Why it has no result, if it has none.
    """

    index: int
    outcome: Outcome
    distance: float | None
    values: Mapping[str, Any]
    kimg: float
    seconds: float
    reason: str | None

    def summary(self) -> dict[str, Any]:
        """As plain values."""
        return {"trial": self.index, **{k: v for k, v in vars(self).items() if k != "index"}}


@dataclass(frozen=True)
class OpenTrial:
    """A trial that is to be run.

    Attributes:
        index: As of `TrialRecord`.
        values: Likewise.
    """

    index: int
    values: Mapping[str, Any]
    optuna: optuna.Trial


class SweepStudy:
    """The study in a folder, made if there is none. Its caller holds the folder's lock.

    Args:
        folder: Of the sweep.
        space: What is tried.
        settings: How.
    """

    def __init__(self, folder: Path, space: SearchSpace, settings: SweepSettings) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        self._settings = settings
        self._storage = _open_storage(folder / STUDY_FILE)
        self.optuna = optuna.load_study(study_name=STUDY_NAME, storage=self._storage)
        # The median rule: a trial goes that is worse than half of the finished ones at the same
        # point. Successive halving would cut most trials early, and rates that decay over the
        # budget make slow beginners of good recipes.
        self.optuna.pruner = optuna.pruners.MedianPruner(
            n_startup_trials=TRIALS_BEFORE_PRUNING,
            n_warmup_steps=math.ceil(settings.pruning_start * settings.evaluations),
        )
        self._requeue_dead()

    def records(self) -> list[TrialRecord]:
        """The trials that are over, in their order."""
        return [
            TrialRecord(
                index=trial.user_attrs[INDEX],
                outcome=trial.user_attrs[OUTCOME],
                distance=min(trial.intermediate_values.values(), default=None),
                values=self.space.values(trial.params),
                kimg=trial.user_attrs[KIMG],
                seconds=trial.user_attrs[SECONDS],
                reason=trial.user_attrs[REASON],
            )
            for trial in self._settled()
        ]

    def ask(self) -> OpenTrial:
        """The next trial: an interrupted one again, the pipeline's own settings, or a new one."""
        index = len(self._settled())
        waiting = self.optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if index == 0 and not waiting:
            self.optuna.enqueue_trial(self.space.own_parameters)
        # A seed for each trial: a sweep that was interrupted tries what it would have tried.
        seed = int(fingerprint([self._settings.sampler_seed, index])[:8], 16)
        self.optuna.sampler = optuna.samplers.TPESampler(seed=seed)
        trial = self.optuna.ask(self.space.distributions)
        trial.set_user_attr(INDEX, index)
        return OpenTrial(index, self.space.values(trial.params), trial)

    def report(self, trial: OpenTrial, step: int, distance: float) -> bool:
        """Tell the smallest distance up to an evaluation; returns whether to give the trial up.

        Args:
            trial: Which one.
            step: Number of the evaluation, from 1.
            distance: As of `TrialRecord`.
        """
        trial.optuna.report(distance, step)
        return step < self._settings.evaluations and trial.optuna.should_prune()

    def settle(
        self,
        trial: OpenTrial,
        outcome: Outcome,
        distance: float | None,
        kimg: float,
        seconds: float,
        reason: str | None = None,
    ) -> TrialRecord:
        """End a trial for good."""
        record = TrialRecord(trial.index, outcome, distance, trial.values, kimg, seconds, reason)
        for name in (KIMG, SECONDS, REASON, OUTCOME):
            trial.optuna.set_user_attr(name, getattr(record, name))
        value = distance if outcome == "complete" else None
        self.optuna.tell(trial.optuna, value, STATES[outcome])
        return record

    def interrupt(self, trial: OpenTrial) -> None:
        """End an attempt at a trial that is to be tried again, unless it is over already."""
        number = trial.optuna.number
        if self.optuna.trials[number].state == TrialState.RUNNING:
            self._requeue(number, trial.optuna.params)

    def close(self) -> None:
        """Let go of the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _settled(self) -> list[FrozenTrial]:
        found = [
            trial
            for trial in self.optuna.get_trials(deepcopy=False)
            # Killed before it was told, its outcome stands there, but it is not what it says.
            if trial.state == STATES.get(trial.user_attrs.get(OUTCOME, ""))
        ]
        return sorted(found, key=lambda trial: trial.user_attrs[INDEX])

    def _requeue_dead(self) -> None:
        for trial in self.optuna.get_trials(states=(TrialState.RUNNING,)):
            self._requeue(trial.number, trial.params)

    def _requeue(self, number: int, parameters: dict[str, Any]) -> None:
        """Mark an attempt as failed and queue its parameters, unless it died before it had them.

        Cut off between the two, the sampler suggests the same again.
        """
        self.optuna.tell(number, state=TrialState.FAIL)
        if set(parameters) == set(self.space.distributions):
            self.optuna.enqueue_trial(parameters)


def _open_storage(path: Path) -> optuna.storages.RDBStorage:
    """The database of the study, made under another name: one that exists is whole."""
    if not path.exists():
        working = path.with_suffix(".partial")
        working.unlink(missing_ok=True)
        storage = optuna.storages.RDBStorage(f"sqlite:///{working}")
        optuna.create_study(storage=storage, study_name=STUDY_NAME, direction="minimize")
        storage.remove_session()
        storage.engine.dispose()
        working.replace(path)
    return optuna.storages.RDBStorage(f"sqlite:///{path}")
