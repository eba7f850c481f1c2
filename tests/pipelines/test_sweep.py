"""Sweeps: trained, given up, interrupted, killed, taken up again, and what they leave."""

import json
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import filelock
import optuna
import PIL.Image
import pytest
import yaml
from click.testing import CliRunner

from gan_core.config import PipelineSettings, apply_overrides
from gan_core.errors import FoundryError
from gan_core.training.checkpoint import read_progress
from gan_core.training.job import CHECKPOINT_FILE, JOURNAL_FILE, LOCK_FILE, TrainingJob
from gan_core.training.journal import read_journal
from pipelines import pipeline_files, tracking
from pipelines.cli import main
from pipelines.devices import devices_to_oneself
from pipelines.launch import TrainingCrashedError
from pipelines.run import RunInterruptedError, StageCrashedError
from pipelines.start_weights import Origin
from pipelines.sweep import place, study, sweep, trial
from pipelines.sweep.mlflow_runs import STATE_TAG, SWEEP_TAG, SweepRuns
from pipelines.sweep.plots import Plots, axis_names, draw_plots
from pipelines.sweep.sweep import SweepResult
from tests.conftest import PROJECT, subprocess_environment
from tests.gan_core.trainings import train_here, wait_until
from tests.pipelines.tiny_pipeline import metadata, open_pipeline, tiny_settings, write_stripes

Rows = list[dict[str, Any]]
NAME = "stripes"
EVALUATIONS = 4
RATES = {"training.generator_learning_rate": {"low": 0.002, "high": 0.2, "log": True}}


@dataclass(frozen=True)
class Prepared:
    """A tiny pipeline whose images and feature network are there."""

    settings: PipelineSettings
    stages: dict[str, Any]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("prepared")
    write_stripes(folder / "images")
    changes = {
        "sweep.parameters": RATES,
        "sweep.evaluations": EVALUATIONS,
        "training.checkpoint_interval_seconds": 0.05,
    }
    settings = apply_overrides(tiny_settings(folder / "images"), changes, "x")
    with pytest.MonkeyPatch.context() as patch, open_pipeline(NAME, settings) as pipeline:
        patch.setenv("DAGSTER_HOME", str(folder / "home"))
        found = metadata(pipeline.run(*sweep.STAGES))
    kept = {
        stage: {key: found[stage][key] for key in ("folder", "sha256")}
        for stage in ("training_images", "feature_network")
    }
    return Prepared(settings, kept)


@pytest.fixture
def pipeline_file(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pipeline's file, known to the command line."""
    file = tmp_path / "defs" / NAME / pipeline_files.PIPELINE_FILE
    file.parent.mkdir(parents=True)
    attributes = prepared.settings.model_dump(mode="json", exclude_defaults=True)
    content = {"type": pipeline_files.COMPONENT_TYPE, "attributes": attributes}
    file.write_text("# Stripes.\n" + yaml.safe_dump(content))
    monkeypatch.setattr(pipeline_files, "DEFS_FOLDER", file.parents[1])
    return file


Sweep = Callable[..., SweepResult]


@pytest.fixture
def run_whole_sweep(
    prepared: Prepared, pipeline_file: Path, mlflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Sweep:
    """Sweeps the prepared pipeline; arguments are settings of the sweep."""
    monkeypatch.setattr(sweep, "materialize", lambda *_: SimpleNamespace(metadata=prepared.stages))

    def run(trials: int, timeout_minutes: float | None = None, **changes: Any) -> SweepResult:
        values = {f"sweep.{key}": value for key, value in changes.items()}
        return sweep.sweep_pipeline(NAME, trials, values, timeout_minutes)

    return run


@pytest.fixture(scope="module")
def empty_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's database: to make one takes half a second, to copy it none."""
    path = tmp_path_factory.mktemp("study") / study.STUDY_FILE
    storage = study._open_storage(path)
    storage.remove_session()
    storage.engine.dispose()
    return path


@pytest.fixture
def run_sweep(run_whole_sweep: Sweep, empty_study: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """The same without MLflow and pictures."""
    open_storage = study._open_storage

    def copy_and_open(path: Path) -> optuna.storages.RDBStorage:
        if not path.exists():
            shutil.copyfile(empty_study, path)
        return open_storage(path)

    monkeypatch.setattr(study, "_open_storage", copy_and_open)
    monkeypatch.setattr(SweepRuns, "_try", lambda *_: True)
    monkeypatch.setattr(sweep, "draw_plots", lambda *_: Plots((), "not drawn"))
    return run_whole_sweep


def write_rows(folder: Path, *rows: dict[str, Any]) -> None:
    with (folder / JOURNAL_FILE).open("a") as journal:
        for row in rows:
            journal.write(json.dumps({"time": time.time(), **row}) + "\n")


class ScriptedTrainings:
    """Jobs that reach given distances, one after the other, without being trained.

    Args:
        script: For each job the distances of its evaluations, or the error that it ends with.
    """

    def __init__(self, *script: list[float] | BaseException) -> None:
        self._script = list(script)
        self.jobs: list[TrainingJob] = []

    def __call__(self, folder: Path, on_rows: Callable[[Rows], None]) -> None:
        self.jobs.append(TrainingJob.read(folder))
        (folder / JOURNAL_FILE).unlink(missing_ok=True)
        (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
        write_rows(folder, {"event": "start", "images": 0, "kimg": 0.0})
        found = self._script.pop(0)
        if isinstance(found, BaseException):
            raise found
        for number, distance in enumerate(found, 1):
            place = {"images": number * 80, "kimg": number * 0.08}
            write_rows(folder, {"event": "evaluation", "distance": distance, **place})
            on_rows([])
        end = {"images": 320, "kimg": 0.32, "seconds": 1.0}
        write_rows(folder, {"event": "end", **end})

    @property
    def rates(self) -> list[float]:
        return [job.training.generator_learning_rate for job in self.jobs]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScriptedTrainings]:
    def use(*script: list[float] | BaseException) -> ScriptedTrainings:
        trainings = ScriptedTrainings(*script)
        monkeypatch.setattr(trial, "run_job", trainings)
        return trainings

    return use


Scripted = Callable[..., ScriptedTrainings]


def falling(end: float) -> list[float]:
    """Distances of a trial."""
    return [end + EVALUATIONS - number for number in range(1, EVALUATIONS + 1)]


def states(result: SweepResult) -> list[optuna.trial.TrialState]:
    found = optuna.load_study(study_name=None, storage=f"sqlite:///{result.folder}/study.db")
    return [one.state for one in found.trials]


def mlflow_runs() -> tuple[Any, dict[str, Any]]:
    """The parent, and the children by their names."""
    client = tracking.connect()
    experiment = client.get_experiment_by_name(NAME)
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if SWEEP_TAG in run.data.tags]
    children = {run.info.run_name: run for run in runs if run is not parent}
    for run in children.values():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    return parent, children


def outcomes(result: SweepResult) -> list[Any]:
    return [(found.outcome, found.distance, found.values) for found in result.records]


def test_a_sweep_leaves_plots_a_winner_journals_and_a_child_run_of_each_trial(
    run_whole_sweep: Sweep, monkeypatch: pytest.MonkeyPatch, prepared: Prepared
) -> None:
    monkeypatch.setattr(trial, "run_job", train_here)
    result = run_whole_sweep(4)
    first, *_ = result.records
    assert first.values == {"training.generator_learning_rate": 0.02}  # the pipeline's own
    assert [found.outcome for found in result.records] == ["complete"] * 4

    for file in result.plots.files:
        with PIL.Image.open(file) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert min(picture.size) > 300
    assert [file.name for file in result.plots.files] == [
        *("parallel_coordinates.png", "importances.png")
    ]
    for folder in (result.folder / "trials").iterdir():
        kept = {path.name for path in folder.iterdir()}
        assert kept <= {"job.json", "journal.jsonl", "grids", "training.lock"}
        evaluations = [r for _, r in read_journal(folder / JOURNAL_FILE) if "is_best" in r]
        assert len(evaluations) == EVALUATIONS

    parent, children = mlflow_runs()
    assert (parent.info.run_name, parent.info.status) == ("sweep", "FINISHED")
    assert parent.info.run_id == result.mlflow_run_id
    assert set(children) == {"trial 0", "trial 1", "trial 2", "trial 3"}
    client = tracking.connect()
    for found in result.records:
        run = children[f"trial {found.index}"]
        rate = found.values["training.generator_learning_rate"]
        assert float(run.data.params["training.generator_learning_rate"]) == rate
        assert run.data.tags[STATE_TAG] == "complete"
        curve = client.get_metric_history(run.info.run_id, "monitoring/distance")
        assert min(point.value for point in curve) == found.distance
        assert len(curve) == EVALUATIONS
    logged = {Path(item.path).name for item in client.list_artifacts(parent.info.run_id, "sweep")}
    assert logged >= {"parallel_coordinates.png", "importances.png"}
    best = min(result.records, key=lambda found: found.distance or 0)
    assert (result.winner is None) == (best.index == 0)
    if result.winner:
        assert logged >= {"winner.yaml", "winner.diff"}


def test_the_same_sweep_again_trains_nothing_more_trials_go_on_and_another_recipe_begins_anew(
    run_sweep: Sweep, scripted: Scripted
) -> None:
    trainings = scripted(falling(5), falling(4), falling(3))
    run_sweep(2)
    result = run_sweep(2)
    assert len(trainings.jobs) == 2
    assert [found.distance for found in run_sweep(3).records] == [5, 4, 3]
    assert len(set(trainings.rates)) == 3

    scripted(falling(5))
    assert run_sweep(1, kimg=0.16).folder != result.folder
    assert len(run_sweep(1).records) == 3  # the first one is as it was


def test_trials_worse_than_half_of_the_finished_ones_are_given_up_early(
    run_whole_sweep: Sweep, scripted: Scripted
) -> None:
    scripted(*(falling(end) for end in (4, 5, 3, 6)), falling(20), falling(2))
    result = run_whole_sweep(6)
    assert [found.outcome for found in result.records] == [
        *("complete", "complete", "complete", "complete", "pruned", "complete")
    ]
    given_up = result.records[4]
    assert given_up.kimg == pytest.approx(0.16)  # the second evaluation; pruning starts at 0.3
    assert given_up.reason == "given up at 0.16 kimg"
    assert states(result)[4] == optuna.trial.TrialState.PRUNED
    _, children = mlflow_runs()
    assert children["trial 4"].data.tags[STATE_TAG] == "pruned"
    assert result.winner is not None
    assert result.winner.record.index == 5
    assert "trial 5 reaches 2.000, better than the pipeline's own settings, which" in (
        result.sentence
    )


def test_nothing_is_given_up_where_pruning_starts_at_the_end(
    run_sweep: Sweep, scripted: Scripted
) -> None:
    scripted(*[falling(end) for end in (4, 5, 3, 6, 20)])
    result = run_sweep(5, pruning_start=1.0)
    assert [found.outcome for found in result.records] == ["complete"] * 5


def test_a_training_that_diverges_or_crashes_is_a_bad_trial_and_the_sweep_goes_on(
    run_sweep: Sweep, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = scripted(falling(5), TrainingCrashedError("its log ends:\nout of memory"))
    diverging = FoundryError("the training diverged: generator_loss is nan")

    def run(folder: Path, on_rows: Callable[[Rows], None]) -> None:
        if len(trainings.jobs) < 2:
            trainings(folder, on_rows)
            return
        alarm = {"event": "alarm", "name": "non_finite", "reaction": "stop", "kimg": 0.1}
        write_rows(folder, {**alarm, "images": 100, "message": "generator_loss is nan"})
        on_rows([])
        raise diverging

    monkeypatch.setattr(trial, "run_job", run)
    _, crashed, diverged = run_sweep(3).records
    assert (crashed.outcome, crashed.reason) == ("failed", "crashed: out of memory")
    assert (diverged.outcome, diverged.reason) == ("pruned", "diverged: generator_loss is nan")


def test_own_settings_that_crash_end_the_sweep(run_sweep: Sweep, scripted: Scripted) -> None:
    scripted(TrainingCrashedError("its log ends:\nout of memory"), falling(3))
    with pytest.raises(StageCrashedError, match="own settings, crashed: out of memory; its log"):
        run_sweep(3)
    assert run_sweep(1).records[0].outcome == "complete"  # they are tried again


def test_a_mistake_of_the_user_ends_the_sweep_and_the_trial_is_tried_again(
    run_sweep: Sweep, scripted: Scripted
) -> None:
    trainings = scripted(falling(5), FoundryError("the disk is full"), falling(4))
    with pytest.raises(FoundryError, match="the disk is full"):
        run_sweep(2)
    result = run_sweep(2)
    assert [found.outcome for found in result.records] == ["complete", "complete"]
    assert trainings.rates[1] == trainings.rates[2]


def test_an_interrupted_trial_is_tried_again_and_none_stays_running(
    run_whole_sweep: Sweep, scripted: Scripted
) -> None:
    interruption = dg.DagsterExecutionInterruptedError()
    trainings = scripted(falling(5), interruption, falling(4), falling(3))
    with pytest.raises(RunInterruptedError, match="run the same command again to go on"):
        run_whole_sweep(3)
    parent, children = mlflow_runs()
    assert parent.info.status == "KILLED"
    result = run_whole_sweep(3)
    assert trainings.rates[1] == trainings.rates[2]
    assert len(set(trainings.rates)) == 3
    assert [found.index for found in result.records] == [0, 1, 2]
    assert optuna.trial.TrialState.RUNNING not in states(result)
    parent, children = mlflow_runs()
    assert set(children) == {"trial 0", "trial 1", "trial 2"}


def test_ctrl_c_is_one_sentence_and_status_130(run_sweep: Sweep, scripted: Scripted) -> None:
    scripted(KeyboardInterrupt())
    result = CliRunner().invoke(main, ["sweep", NAME, "--trials", "2", "--json"])
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith(f"error: the sweep of {NAME} was interrupted;")


def test_when_the_time_is_up_the_trial_is_stopped_and_the_next_call_goes_on(
    run_sweep: Sweep, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = scripted(falling(5), falling(4), falling(4))
    clock = SimpleNamespace(monotonic=lambda: 600.0 * len(trainings.jobs))
    monkeypatch.setattr(sweep, "time", clock)
    monkeypatch.setattr(trial, "time", clock)
    result = run_sweep(2, timeout_minutes=15)
    assert len(result.records) == 1
    assert "1 of 2 trials when the time was up; run it again to go on" in result.sentence
    assert [found.distance for found in run_sweep(2).records] == [5, 4]
    assert trainings.rates[1] == trainings.rates[2]


def test_what_trials_need_is_made_whole_though_it_takes_all_the_time(
    run_sweep: Sweep, prepared: Prepared, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = scripted(falling(5))
    clock = SimpleNamespace(seconds=0.0)

    def materialize(*_: object) -> SimpleNamespace:
        clock.seconds += 120.0
        return SimpleNamespace(metadata=prepared.stages)

    monkeypatch.setattr(sweep, "materialize", materialize)
    for module in (sweep, trial):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    assert "0 of 1 trials when the time was up" in run_sweep(1, timeout_minutes=1).sentence
    assert trainings.jobs == []
    assert [found.distance for found in run_sweep(1, timeout_minutes=3).records] == [5]


def test_when_the_time_is_up_nobody_waits_for_the_device_any_longer(
    run_sweep: Sweep, scripted: Scripted
) -> None:
    trainings = scripted(falling(5))
    with devices_to_oneself("cpu", 1, lambda: None):
        result = run_sweep(1, timeout_minutes=0.02)
    assert "0 of 1 trials when the time was up" in result.sentence
    assert trainings.jobs == []
    assert [found.distance for found in run_sweep(1).records] == [5]


def test_trials_begin_with_the_version_that_is_champion_when_the_sweep_begins(
    run_sweep: Sweep, scripted: Scripted, pipeline_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = yaml.safe_load(pipeline_file.read_text())
    content["attributes"]["training"]["start_from"] = "champion"
    pipeline_file.write_text(yaml.safe_dump(content))
    client = tracking.connect()
    client.create_registered_model(NAME)
    for _ in range(2):
        client.create_model_version(NAME, "runs:/none/generator")
    client.set_registered_model_alias(NAME, "champion", "2")

    def fetched(model: str, start_from: str | int, *_: object) -> Origin:
        assert (model, start_from) == (NAME, 2)
        return Origin(version=2, sha256="ab" * 32, with_discriminator=False)

    monkeypatch.setattr(trial, "fetch_start", fetched)
    trainings = scripted(falling(5), falling(4), falling(3))
    folder = run_sweep(2).folder
    assert {job.start_sha256 for job in trainings.jobs} == {"ab" * 32}

    networks = {"network.latent_dim": {"choices": [4, 8]}}
    with pytest.raises(FoundryError, match=r"network.latent_dim cannot be swept .* version 2"):
        run_sweep(2, parameters=networks)

    client.set_registered_model_alias(NAME, "champion", "1")
    monkeypatch.setattr(trial, "fetch_start", lambda *_: None)
    assert run_sweep(1).folder != folder


def test_a_second_sweep_of_the_same_study_is_refused_by_name(
    run_sweep: Sweep, scripted: Scripted
) -> None:
    scripted(falling(5), falling(5))
    folder = run_sweep(1).folder
    with filelock.FileLock(folder / place.LOCK_FILE, is_singleton=False):
        with pytest.raises(FoundryError) as caught:
            run_sweep(1)
        run_sweep(1, kimg=0.16)  # another study
    assert str(caught.value) == (
        f"the sweep {folder.name} of {NAME} is under way in another process; wait for it or stop "
        "it."
    )


def test_without_mlflow_a_sweep_goes_on_and_what_is_missing_is_sent_later(
    run_whole_sweep: Sweep,
    scripted: Scripted,
    dead_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted(falling(5), falling(4))
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", dead_server)
        result = run_whole_sweep(2)
    assert result.mlflow_run_id is None
    assert [found.distance for found in result.records] == [5, 4]
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_whole_sweep(2)
    _, children = mlflow_runs()
    assert {run.data.tags[STATE_TAG] for run in children.values()} == {"complete"}
    assert children["trial 1"].data.metrics["monitoring/distance"] == 4


def test_where_the_own_settings_are_the_best_it_says_so_and_writes_no_diff(
    run_sweep: Sweep, scripted: Scripted
) -> None:
    scripted(falling(3), falling(4))
    result = run_sweep(2)
    assert result.sentence == (
        "2 of 2 trials: nothing is better than the pipeline's own settings, which reach 3.000"
    )
    assert not (result.folder / "winner.diff").exists()


def test_axes_have_the_names_of_what_optuna_draws_there() -> None:
    import matplotlib as mpl
    from optuna.visualization.matplotlib import plot_parallel_coordinate

    study = optuna.create_study()
    spaces = {
        "training.batch_size": optuna.distributions.IntDistribution(1, 9),
        "network.latent_dim": optuna.distributions.IntDistribution(1, 9),
    }
    for value in (1, 2):
        made = optuna.trial.create_trial(
            params=dict.fromkeys(spaces, value), distributions=spaces, value=float(value)
        )
        study.add_trial(made)
    with mpl.rc_context({"backend": "agg"}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = plot_parallel_coordinate(study)
    _, *drawn = [label.get_text() for label in axes.get_xticklabels()]
    assert [name.partition(".")[2] for name in drawn] == axis_names(spaces)


def test_importances_that_cannot_be_told_leave_the_other_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_variance(*_: object, **__: object) -> None:
        raise RuntimeError("Encountered zero total variance in all trees.")

    monkeypatch.setattr("optuna.visualization.matplotlib.plot_param_importances", no_variance)
    study = optuna.create_study()
    space = {"training.batch_size": optuna.distributions.IntDistribution(1, 9)}
    for value in (1, 2):
        made = optuna.trial.create_trial(
            params={"training.batch_size": value}, distributions=space, value=5 + 1e-9 * value
        )
        study.add_trial(made)
    plots = draw_plots(study, tmp_path)
    assert [file.name for file in plots.files] == ["parallel_coordinates.png"]
    assert plots.sentence.endswith("no importances (Encountered zero total variance in all trees)")


def test_too_little_to_draw_is_said_instead_of_drawn(
    run_whole_sweep: Sweep, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(falling(3), falling(3))
    monkeypatch.setattr(SweepRuns, "_try", lambda *_: True)
    assert (
        run_whole_sweep(1).plots.missing
        == "no plots, which need 2 finished trials, and there are 1"
    )
    assert "the same distance" in (run_whole_sweep(2).plots.missing or "")


def test_the_command_shows_a_table_the_diff_and_how_to_apply_it(
    run_sweep: Sweep, scripted: Scripted
) -> None:
    scripted(falling(4), falling(3))
    shown = CliRunner().invoke(main, ["sweep", NAME, "--trials", "2"])
    assert shown.exit_code == 0, shown.output
    assert "generator" in shown.stdout
    assert "-    generator_learning_rate: 0.02" in shown.stdout
    assert shown.stdout.splitlines()[-1].endswith("winner.diff")
    assert "✓ trial 1: complete, distance 3.000" in shown.stderr

    found = json.loads(CliRunner().invoke(main, ["sweep", NAME, "--trials", "2", "--json"]).stdout)
    assert [row["distance"] for row in found["trials"]] == [4, 3]
    assert (found["own_distance"], found["winner"]["distance"]) == (4, 3)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "no pipeline 'nowhere'"),
        ([NAME, "--set", "training.kimg=3"], "training.kimg cannot be changed for a sweep"),
        ([NAME, "--set", "sweep.kimg=0"], "sweep.kimg is 0"),
        (
            [NAME, "--set", "sweep.parameters={training.batch_size: {choices: [32, 64]}}"],
            "training.batch_size is 16 in this pipeline, whose own settings are the first trial",
        ),
    ],
)
def test_a_mistake_in_sweep_is_one_sentence_and_starts_nothing(
    pipeline_file: Path, own_home: Path, arguments: list[str], told: str
) -> None:
    result = CliRunner().invoke(main, ["sweep", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert not (own_home / "sweeps").exists()
    assert not (own_home / "store").exists()


SWEEP_IN_A_PROCESS = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from gan_core.config import PipelineSettings
from pipelines.sweep import sweep
from pipelines.sweep.mlflow_runs import SweepRuns

SweepRuns._try = lambda *_: True
stages, settings, file = json.loads(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
sweep.materialize = lambda *_: SimpleNamespace(metadata=stages)
sweep.sweep("stripes", PipelineSettings.model_validate_json(settings), file, 2)
"""


def test_a_killed_sweep_goes_on_to_the_trials_of_an_undisturbed_one(
    prepared: Prepared,
    run_sweep: Sweep,
    pipeline_file: Path,
    own_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trial, "run_job", train_here)
    undisturbed = run_sweep(2, kimg=2.4)
    (own_home / "sweeps").rename(tmp_path / "undisturbed")

    settings = apply_overrides(prepared.settings, {"sweep.kimg": 2.4}, "x")
    arguments = [json.dumps(prepared.stages), settings.model_dump_json(), str(pipeline_file)]
    process = subprocess.Popen(
        [sys.executable, "-c", SWEEP_IN_A_PROCESS, *arguments],
        cwd=PROJECT,
        env=subprocess_environment(DAGSTER_HOME=str(own_home)),
    )

    def images_at_checkpoint() -> int:
        assert process.poll() is None, "the sweep has ended"
        checkpoints = own_home.glob(f"sweeps/{NAME}/*/trials/*/{CHECKPOINT_FILE}")
        progress = [read_progress(path) for path in checkpoints]
        return max((found.images for found in progress if found), default=0)

    try:
        wait_until(lambda: images_at_checkpoint() >= 160, "a checkpoint of the first trial", 120)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()

    continued: list[int] = []

    def continue_here(folder: Path, on_rows: Callable[[Rows], None]) -> None:
        with filelock.FileLock(folder / LOCK_FILE):  # the trainer ends when its parent is dead
            found = read_progress(folder / CHECKPOINT_FILE)
        continued.append(found.images if found else 0)
        train_here(folder, on_rows)

    monkeypatch.setattr(trial, "run_job", continue_here)
    result = run_sweep(2, kimg=2.4)
    assert (continued[0] >= 160, continued[1:]) == (True, [0])
    assert outcomes(result) == outcomes(undisturbed)
    assert states(result) == [
        optuna.trial.TrialState.FAIL,  # the attempt that was killed
        *[optuna.trial.TrialState.COMPLETE] * 2,
    ]


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"training.processes": 2, "training.launcher": "torchrun"}, True),
        ({"training.device": "cpu"}, False),
        ({"training.precision": "fp32"}, False),
        ({"training.threads": 2}, False),
        ({"training.kimg": 2}, False),
        ({"network.latent_dim": 8}, False),
    ],
)
def test_a_trial_is_continued_where_and_how_it_began(
    changes: dict[str, Any], same: bool, tmp_path: Path
) -> None:
    settings = tiny_settings(tmp_path)
    key = trial.training_key(apply_overrides(settings, changes, "test"))
    assert (key == trial.training_key(settings)) is same
