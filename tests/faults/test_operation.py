"""Runs of the user interface whose processes are killed: nothing stays, and training goes on."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import yaml

from gan_core.training.journal import read_journal
from pipelines.pipeline_files import COMPONENT_TYPE
from pipelines.run_processes import process_of
from tests.conftest import PROJECT, copy_project
from tests.faults.runs import images_at_checkpoint, trainers
from tests.gan_core.trainings import wait_until
from tests.pipelines.tiny_pipeline import tiny_settings, write_stripes
from tests.running_ui import RunningUi

pytestmark = pytest.mark.slow

LONG_FORM = pytest.mark.skipif(
    os.environ.get("GAN_FOUNDRY_FAULTS") != "long", reason="left to `make faults`"
)
KIMG = 24
SETTINGS = {
    "training.kimg": KIMG,
    "training.threads": 1,
    "training.checkpoint_interval_seconds": 0.5,
    "network.generator_channels": [32, 16, 16],
    "feature_network.epochs": 1,
}
# Up to the stage that is disturbed: those that follow are not what is tested here.
STAGES = ("raw_images", "training_images", "feature_network", "generator")
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)

LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
TERMINATE = """
mutation Terminate($id: String!) {
  terminateRun(runId: $id) { __typename ... on PythonError { message } }
}
"""


class Operated:
    """A user interface whose processes a test kills, and its runs."""

    def __init__(self, home: Path, project: Path = PROJECT) -> None:
        self.home = home
        self.ui = RunningUi(home, project=project)

    def start_again(self) -> None:
        self.ui = RunningUi(self.home)

    def launch(self, pipeline: str = "digits", **settings: Any) -> str:
        values = SETTINGS | {key.replace("__", "."): value for key, value in settings.items()}
        launched = self.ui.graphql(
            LAUNCH,
            params={
                "selector": {
                    "repositoryLocationName": "gan_foundry",
                    "repositoryName": "__repository__",
                    "jobName": "__ASSET_JOB",
                    "assetSelection": [{"path": [pipeline, stage]} for stage in STAGES],
                },
                "runConfigData": {"resources": {"overrides": {"config": {"values": values}}}},
                "mode": "default",
            },
        )["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def runs(self) -> list[dg.DagsterRun]:
        """All runs, the oldest first."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            return [record.dagster_run for record in instance.get_run_records(ascending=True)]

    def statuses(self) -> list[dg.DagsterRunStatus]:
        return [run.status for run in self.runs()]

    def wait_for_training(self) -> psutil.Process:
        """The trainer, when it has a checkpoint to continue from."""
        wait_until(
            lambda: bool(trainers(self.home)) and images_at_checkpoint(self.home) > 0,
            "a training with a checkpoint",
            120,
        )
        (trainer,) = trainers(self.home)
        return trainer

    def run_process(self) -> int:
        """The process of the only unfinished run."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            (run,) = [run for run in self.runs() if not run.is_finished]
            process = process_of(instance, run)
        assert process is not None
        assert process.alive
        return process.number

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.ui.process.pid).children(recursive=True)

    def steps(self) -> list[psutil.Process]:
        """The processes of the stages that are under way; each is forked from a run's server."""
        servers = [one for one in self.family() if "forkserver" in " ".join(one.cmdline())]
        return [one for one in servers if one.ppid() in {server.pid for server in servers}]

    def materialized(self, run: dg.DagsterRun) -> list[str]:
        """Names of the stages that a run did."""
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            events = instance.all_logs(run.run_id, of_type=kind)
        made = [event.asset_materialization for event in events]
        return [one.asset_key.path[-1] for one in made if one is not None]

    def journal(self) -> list[dict[str, Any]]:
        """Of the only generator."""
        (journal,) = self.home.glob("store/digits/generator/*/journal.jsonl")
        return [row for _, row in read_journal(journal)]

    def images_shown(self) -> list[int]:
        return [row["images"] for row in self.journal() if row["event"] == "progress"]

    def end(self) -> None:
        """Kill what is left of it."""
        if self.ui.process.poll() is None:
            everything = [psutil.Process(self.ui.process.pid), *self.family()]
            for process in [*everything, *trainers(self.home)]:
                kill(process)
            self.ui.process.wait()


def kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


@pytest.fixture
def operated(own_home: Path) -> Iterator[Operated]:
    found = Operated(own_home)
    yield found
    found.end()


def assert_trained_once(operated: Operated) -> None:
    """The journal holds every line once, although the training was interrupted."""
    shown = operated.images_shown()
    assert shown == sorted(set(shown))
    assert shown[-1] == KIMG * 1000


def test_after_the_machine_was_switched_off_the_run_is_over_and_its_training_goes_on_by_itself(
    operated: Operated,
) -> None:
    operated.launch()
    operated.wait_for_training()
    before = images_at_checkpoint(operated.home)
    all_of_them = [psutil.Process(operated.ui.process.pid), *operated.family()]
    for process in [*all_of_them, *trainers(operated.home)]:  # at once, as without power
        kill(process)
    operated.ui.process.wait()
    assert operated.statuses() == [dg.DagsterRunStatus.STARTED]  # as the event log has it

    operated.start_again()
    assert operated.statuses()[0] == dg.DagsterRunStatus.FAILURE
    wait_until(
        lambda: operated.statuses()[1:] == [dg.DagsterRunStatus.SUCCESS], "the second attempt", 180
    )
    assert trainers(operated.home) == []
    assert_trained_once(operated)
    assert 0 < before < KIMG * 1000


@LONG_FORM
def test_a_killed_run_worker_is_noticed_and_the_run_started_again(operated: Operated) -> None:
    operated.launch()
    trainer = operated.wait_for_training()
    os.kill(operated.run_process(), signal.SIGKILL)
    wait_until(lambda: not trainer.is_running(), "the end of its trainer", 15)
    wait_until(
        lambda: operated.statuses()[0] == dg.DagsterRunStatus.FAILURE, "the run's failure", 120
    )
    wait_until(
        lambda: operated.statuses()[1:] == [dg.DagsterRunStatus.SUCCESS], "the second attempt", 180
    )
    assert_trained_once(operated)


@LONG_FORM
@pytest.mark.parametrize("killed", ["step", "trainer"])
def test_a_killed_step_or_trainer_is_started_again_within_its_run(
    operated: Operated, killed: str
) -> None:
    operated.launch()
    trainer = operated.wait_for_training()
    process = trainer.parent() if killed == "step" else trainer
    assert process is not None
    process.kill()
    wait_until(lambda: operated.statuses()[0] in ENDED, "the run's end", 180)
    assert operated.statuses() == [dg.DagsterRunStatus.SUCCESS]
    assert_trained_once(operated)


@LONG_FORM
def test_a_killed_step_of_another_stage_is_started_again_in_another_run_behind_what_was_done(
    operated: Operated,
) -> None:
    operated.launch(feature_network__epochs=100)
    wait_until(
        lambda: list(operated.home.glob("store/digits/feature_network/*.partial")),
        "the stage feature_network",
        120,
    )
    (step,) = operated.steps()
    step.kill()
    wait_until(
        lambda: operated.statuses()[1:] == [dg.DagsterRunStatus.SUCCESS], "the second attempt", 240
    )
    first, second = operated.runs()
    assert first.status == dg.DagsterRunStatus.FAILURE
    assert operated.materialized(first) == ["raw_images", "training_images"]
    assert operated.materialized(second) == ["feature_network", "generator"]


@LONG_FORM
def test_a_killed_daemon_is_started_again_and_no_run_stays_started(operated: Operated) -> None:
    operated.launch()
    operated.wait_for_training()
    (daemon,) = [one for one in operated.family() if "dagster-daemon" in " ".join(one.cmdline())]
    daemon.kill()
    wait_until(lambda: "dagster-daemon ended by itself" in operated.ui.text(), "the news of it")
    wait_until(lambda: all(status in ENDED for status in operated.statuses()), "the end", 240)
    assert operated.statuses()[-1] == dg.DagsterRunStatus.SUCCESS
    second = operated.launch(training__seed=1)
    wait_until(lambda: operated.runs()[-1].status in ENDED, "a run after it", 180)
    assert operated.runs()[-1].run_id == second
    assert operated.statuses()[-1] == dg.DagsterRunStatus.SUCCESS


@LONG_FORM
def test_a_run_that_outlives_its_longest_time_is_ended_and_not_started_again(
    operated: Operated,
) -> None:
    with dg.DagsterInstance.from_config(str(operated.home)) as instance:
        run = operated.launch(training__kimg=5000)
        instance.add_run_tags(run, {"dagster/max_runtime": "45"})
    operated.wait_for_training()
    wait_until(lambda: operated.statuses()[0] in ENDED, "the run's end", 90)
    assert operated.statuses() == [dg.DagsterRunStatus.FAILURE]
    wait_until(lambda: trainers(operated.home) == [], "its trainer's end", 10)
    time.sleep(20)
    assert len(operated.runs()) == 1


@LONG_FORM
def test_cancelling_ends_the_trainer_within_ten_seconds_with_a_checkpoint(
    operated: Operated,
) -> None:
    run = operated.launch(training__kimg=5000)
    trainer = operated.wait_for_training()
    operated.ui.graphql(TERMINATE, id=run)
    wait_until(lambda: not trainer.is_running(), "the trainer's end", 10)
    wait_until(lambda: operated.statuses() == [dg.DagsterRunStatus.CANCELED], "the run's end", 30)
    assert images_at_checkpoint(operated.home) > 0


class Copy:
    """A copy of the project that has four pipelines of tiny images and nothing else."""

    NAMES = ("first", "second", "third", "fourth")

    def __init__(self, folder: Path) -> None:
        self.folder = copy_project(folder)
        definitions = folder / "pipelines" / "defs"
        for shipped in definitions.glob("*/defs.yaml"):
            shipped.unlink()
        for name in self.NAMES:
            write_stripes(folder / "images" / name)
            settings = tiny_settings(folder / "images" / name).model_dump(
                mode="json", exclude_defaults=True
            )
            settings["training"] |= {"kimg": 30, "logging_interval_kimg": 1}
            settings["training"]["monitoring"]["interval_kimg"] = 30
            settings["training"]["grid_interval_kimg"] = 30
            settings["operation"] = {"priority": len(name)}
            content = {"type": COMPONENT_TYPE, "attributes": settings}
            (definitions / name).mkdir()
            (definitions / name / "defs.yaml").write_text(yaml.safe_dump(content))


@LONG_FORM
def test_four_pipelines_started_at_once_train_one_after_the_other_and_all_finish(
    tmp_path: Path, own_home: Path
) -> None:
    copy = Copy(tmp_path / "project")
    operated = Operated(own_home, copy.folder)
    try:
        for name in copy.NAMES:
            operated.launch(name)
        waiting: set[str] = set()
        deadline = time.monotonic() + 400
        while not all(status in ENDED for status in operated.statuses()):
            assert time.monotonic() < deadline, operated.statuses()
            assert len(trainers(operated.home)) <= 1
            runs = operated.runs()
            waiting |= {r.run_id for r in runs if r.status == dg.DagsterRunStatus.QUEUED}
            time.sleep(0.1)
        assert operated.statuses() == [dg.DagsterRunStatus.SUCCESS] * 4
        assert len(waiting) >= 3
    finally:
        operated.end()
