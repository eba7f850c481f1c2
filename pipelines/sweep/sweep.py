"""`gan-foundry sweep`: trials of a pipeline's recipe, one after the other, and the best of them.

Everything lies in `<home>/sweeps/<pipeline>/<key>`. The key is the hash of all that makes trials
comparable: images, feature network, the pipeline's recipe and the search space. So an unchanged
sweep goes on where it was, and a changed one begins anew.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from gan_core.config import PipelineSettings, apply_overrides, fingerprint
from gan_core.errors import FoundryError
from gan_core.training.job import ENGINE_VERSION
from pipelines import home
from pipelines.launch import LOG_FILE
from pipelines.pipeline_files import load_pipeline, pipeline_files
from pipelines.progress import publish
from pipelines.run import RunInterruptedError, StageCrashedError, materialize
from pipelines.start_weights import pinned_start
from pipelines.sweep.mlflow_runs import SweepRuns
from pipelines.sweep.place import alone, sweeps_folder
from pipelines.sweep.plots import Plots, draw_plots
from pipelines.sweep.space import SearchSpace, search_space, trial_settings
from pipelines.sweep.study import OpenTrial, SweepStudy, TrialRecord
from pipelines.sweep.trial import (
    TimeUpError,
    TrialInputs,
    remove_weights,
    train_trial,
    training_key,
)
from pipelines.sweep.winner import Winner, choose_winner, write_winner

TRIALS_FOLDER = "trials"
STAGES = ("raw_images", "training_images", "feature_network")


@dataclass(frozen=True)
class SweepResult:
    """A sweep, as far as it has come.

    Attributes:
        pipeline: Its name.
        folder: Where everything of it lies.
        wanted: How many trials were asked for.
        names: Of the parameters; other settings may take the same values.
        records: Those that are over.
        winner: The best, if it is not the pipeline's own settings.
        plots: Pictures of the study.
        mlflow_run_id: Of the parent run, if MLflow could be reached.
    """

    pipeline: str
    folder: Path
    wanted: int
    names: tuple[str, ...]
    records: list[TrialRecord]
    winner: Winner | None
    plots: Plots
    mlflow_run_id: str | None

    @property
    def own_distance(self) -> float | None:
        """That of the pipeline's own settings, the first trial, if it was finished."""
        first = next(iter(self.records), None)
        return first.distance if first and first.outcome == "complete" else None

    @property
    def sentence(self) -> str:
        """The end of it, for people."""
        done = f"{len(self.records)} of {self.wanted} trials"
        if len(self.records) < self.wanted:
            done += " when the time was up; run it again to go on"
        own = (
            "which failed" if self.own_distance is None else f"which reach {self.own_distance:.3f}"
        )
        if self.winner is None:
            return f"{done}: nothing is better than the pipeline's own settings, {own}"
        record = self.winner.record
        best = f"{done}: trial {record.index} reaches {record.distance:.3f}, better than the "
        best += f"pipeline's own settings, {own}; "
        if self.winner.diff is None:
            return best + (
                "its settings are to be entered by hand, because the pipeline's file is written in "
                "a way that cannot be edited, or has changed meanwhile: "
                f"{self.folder / 'winner.yaml'}"
            )
        return best + f"apply it with: git -C {home.PROJECT} apply {self.folder / 'winner.diff'}"

    def summary(self) -> dict[str, Any]:
        """As plain values; file names are absolute."""
        winner = self.winner
        return {
            "pipeline": self.pipeline,
            "folder": str(self.folder),
            "wanted": self.wanted,
            "parameters": list(self.names),
            "trials": [record.summary() for record in self.records],
            "own_distance": self.own_distance,
            "winner": winner
            and {
                "trial": winner.record.index,
                "distance": winner.record.distance,
                "changes": dict(winner.changes),
                "diff": winner.diff,
            },
            "plots": [str(file) for file in self.plots.files],
            "no_plots": self.plots.missing,
            "mlflow_run_id": self.mlflow_run_id,
        }


def sweep_pipeline(
    name: str,
    trials: int,
    overrides: Mapping[str, Any],
    timeout_minutes: float | None = None,
) -> SweepResult:
    """Sweep a pipeline; see `sweep`.

    Args:
        name: The pipeline's.
        trials: As of `sweep`.
        overrides: Settings of the section `sweep`, by dotted key.
        timeout_minutes: As of `sweep`.
    """
    home.require_checkout()
    settings = load_pipeline(name)
    for key in overrides:
        if not key.startswith("sweep."):
            raise FoundryError(
                f"{key} cannot be changed for a sweep, whose winner is applied to the pipeline's "
                "file; change it there."
            )
    changed = apply_overrides(settings, overrides, "--set")
    return sweep(name, changed, pipeline_files()[name], trials, timeout_minutes)


def sweep(
    name: str,
    settings: PipelineSettings,
    file: Path,
    trials: int,
    timeout_minutes: float | None = None,
) -> SweepResult:
    """Train trials until there are so many, those of earlier calls included.

    Args:
        name: The pipeline's.
        settings: Its own.
        file: Its `defs.yaml`, for the winner's diff.
        trials: How many there shall be.
        timeout_minutes: The trial that is under way then is stopped, to be continued.

    Raises:
        FoundryError: The search space has a mistake, another process is at the same sweep, or a
            training cannot be done for a reason that the user can mend.
        RunInterruptedError: It was interrupted; running it again goes on.
    """
    deadline = None if timeout_minutes is None else time.monotonic() + 60 * timeout_minutes
    space = search_space(settings)  # mistakes come before anything is written
    with _interruptible(name):
        return _sweep(name, settings, space, file, trials, deadline)


def _sweep(
    name: str,
    settings: PipelineSettings,
    space: SearchSpace,
    file: Path,
    trials: int,
    deadline: float | None,
) -> SweepResult:
    start_from = pinned_start(name, settings.training.start_from)
    for network_key in (key for key in space.names if key.startswith("network.")):
        if start_from != "scratch":
            raise FoundryError(
                f"{network_key} cannot be swept where trials begin with version {start_from}, "
                "whose networks are what they are; set training.start_from to scratch, or leave "
                f"{network_key} out of sweep.parameters."
            )
    found = materialize(name, settings, {}, STAGES).metadata
    images, network = found["training_images"], found["feature_network"]
    inputs = TrialInputs(
        name,
        start_from,
        Path(images["folder"]),
        images["sha256"],
        Path(network["folder"]),
        network["sha256"],
    )
    key = _sweep_key(settings, space, inputs)
    folder = sweeps_folder(name) / key
    tags = {"pipeline": name, "data.sha256": inputs.image_set_sha256}
    with alone(folder, name):
        study = SweepStudy(folder, space, settings.sweep)
        runs = SweepRuns(name, key, settings, tags)
        try:
            course = _Course(folder, settings, inputs, study, runs)
            course.run(trials, deadline)
            return course.conclude(trials, file)
        finally:
            study.close()


@dataclass(frozen=True)
class _Course:
    """What the steps of a sweep share."""

    folder: Path
    settings: PipelineSettings
    inputs: TrialInputs
    study: SweepStudy
    runs: SweepRuns

    def run(self, trials: int, deadline: float | None) -> None:
        while len(self.study.records()) < trials:
            if deadline is not None and time.monotonic() >= deadline:
                return
            trial = self.study.ask()
            try:
                self._run_trial(trial, trials, deadline)
            except TimeUpError:
                self._interrupt(trial)
                return
            except BaseException:
                self._interrupt(trial)
                raise

    def conclude(self, wanted: int, file: Path) -> SweepResult:
        """Draw, choose the winner, and complete what MLflow has."""
        records = self.study.records()
        over = [
            (record, settings, self._training_folder(settings))
            for record in records
            if (settings := self._settings_of(record.values)) is not None
        ]
        self.runs.finish_missing(over)
        for _, _, folder in over:
            remove_weights(folder)
        winner = choose_winner(records, self.settings, file)
        files = write_winner(self.folder, winner)
        plots = draw_plots(self.study.optuna, self.folder)
        distances = [record.distance for record in records if record.outcome == "complete"]
        metrics = {"sweep/trials": float(len(records))}
        if distances:
            metrics["sweep/best_distance"] = min(d for d in distances if d is not None)
        self.runs.end("FINISHED", metrics, [*plots.files, *files])
        return SweepResult(
            self.inputs.pipeline,
            self.folder,
            wanted,
            self.study.space.names,
            records,
            winner,
            plots,
            self.runs.parent_id,
        )

    def _run_trial(self, trial: OpenTrial, trials: int, deadline: float | None) -> None:
        names = self.study.space.names
        values = ", ".join(f"{name.partition('.')[2]} {trial.values[name]}" for name in names)
        publish("trial_started", "trial", text=f"trial {trial.index} of {trials}: {values}")
        settings = self._settings_of(trial.values)
        if settings is None:
            reason = "these values do not go together"
            record = self.study.settle(trial, "pruned", None, 0.0, 0.0, reason)
        else:
            folder = self._training_folder(settings)
            result = train_trial(
                folder,
                self.inputs,
                settings,
                lambda step, distance: self.study.report(trial, step, distance),
                lambda: self.runs.follow(trial.index, settings, folder),
                deadline,
            )
            if trial.index == 0 and result.outcome == "failed":
                raise StageCrashedError(
                    f"the first trial, which is the pipeline's own settings, {result.reason}; its "
                    f"log is {folder / LOG_FILE}"
                )
            record = self.study.settle(
                trial, result.outcome, result.distance, result.kimg, result.seconds, result.reason
            )
            self.runs.finish(record, settings, folder)
            remove_weights(folder)
        publish("trial_finished", "trial", outcome=record.outcome, text=_outcome(record))

    def _interrupt(self, trial: OpenTrial) -> None:
        self.study.interrupt(trial)
        self.runs.interrupt(trial.index)

    def _settings_of(self, values: Mapping[str, Any]) -> PipelineSettings | None:
        """A trial's, or None if its values do not go together."""
        try:
            return trial_settings(self.settings, values)
        except FoundryError:
            return None

    def _training_folder(self, settings: PipelineSettings) -> Path:
        return self.folder / TRIALS_FOLDER / training_key(settings)


@contextlib.contextmanager
def _interruptible(name: str) -> Iterator[None]:
    """Tell an interruption, wherever it came, as one sentence."""
    try:
        yield
    except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt, RunInterruptedError):
        raise RunInterruptedError(
            f"the sweep of {name} was interrupted; run the same command again to go on from here."
        ) from None


def _sweep_key(settings: PipelineSettings, space: SearchSpace, inputs: TrialInputs) -> str:
    sweep = settings.sweep
    course = trial_settings(settings, {})
    return fingerprint(
        [
            ENGINE_VERSION,
            inputs.image_set_sha256,
            inputs.feature_network_sha256,
            training_key(course),
            *([] if inputs.start_from == "scratch" else [inputs.start_from]),
            [[list(dimension.keys), dimension.parameter] for dimension in space.dimensions],
            [sweep.evaluations, sweep.pruning_start, sweep.sampler_seed],
        ]
    )


def _outcome(record: TrialRecord) -> str:
    distance = "" if record.distance is None else f"distance {record.distance:.3f} "
    after = f"after {record.kimg:g} kimg in {record.seconds:.0f} s"
    why = f", {record.reason}" if record.reason else ""
    return f"trial {record.index}: {record.outcome}, {distance}{after}{why}"
