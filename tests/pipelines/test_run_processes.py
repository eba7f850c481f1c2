"""Runs and their processes: found, looked after, and ended when they are gone."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import dagster as dg
import psutil
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher.base import LaunchRunContext, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher

from gan_core.operation_settings import OperationSettings
from pipelines.run_coordinator import pipelines_of, run_tags
from pipelines.run_launcher import LocalRunLauncher
from pipelines.run_processes import (
    MACHINE_TAG,
    PROCESS_TAG,
    RunProcess,
    end_dead_runs,
    process_of,
    tag_of_this_machine,
    tag_of_this_process,
)


@dg.job
def nothing() -> None:
    """A job without anything to do."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that lives until a test kills it."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def started_run(instance: dg.DagsterInstance, process: int, **tags: str) -> dg.DagsterRun:
    """A run that Dagster's server of the code has started in a process."""
    run = instance.create_run_for_job(nothing, tags=tags)
    instance.report_engine_event("Started process", run, EngineEventData.in_process(process))
    instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, "nothing"), run.run_id
    )
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == dg.DagsterRunStatus.STARTED
    return found


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def test_the_process_of_a_run_stands_in_the_event_log_or_in_its_tag(
    instance: dg.DagsterInstance, sleeper: "subprocess.Popen[bytes]"
) -> None:
    launched = process_of(instance, started_run(instance, sleeper.pid))
    assert launched is not None
    assert (launched.number, launched.alive) == (sleeper.pid, True)
    tagged = started_run(instance, sleeper.pid, **{PROCESS_TAG: tag_of_this_process()})
    found = process_of(instance, tagged)
    assert found is not None
    assert (found.number, found.alive) == (os.getpid(), True)


def test_runs_of_other_machines_and_unknown_processes_are_left_alone(
    instance: dg.DagsterInstance,
) -> None:
    elsewhere = started_run(instance, 1, **{PROCESS_TAG: "another 1 0.0"})
    assert process_of(instance, elsewhere) is None
    assert process_of(instance, instance.create_run_for_job(nothing)) is None
    end_dead_runs(instance)
    assert status(instance, elsewhere) == dg.DagsterRunStatus.STARTED


def test_a_queued_run_of_another_machine_is_left_alone_though_its_number_is_nobodys_here(
    instance: dg.DagsterInstance, sleeper: "subprocess.Popen[bytes]"
) -> None:
    boot = tag_of_this_machine().partition(" ")[2]
    elsewhere = started_run(instance, sleeper.pid, **{MACHINE_TAG: f"another {boot}"})
    here = started_run(instance, sleeper.pid, **{MACHINE_TAG: tag_of_this_machine()})
    sleeper.kill()
    sleeper.wait()
    end_dead_runs(instance)
    assert status(instance, elsewhere) == dg.DagsterRunStatus.STARTED
    assert status(instance, here) == dg.DagsterRunStatus.FAILURE


def test_a_launched_run_is_tagged_with_its_machine_before_its_process_starts(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags: dict[str, str] = {}

    def launch_run(_: DefaultRunLauncher, context: LaunchRunContext) -> None:
        found = instance.get_run_by_id(context.dagster_run.run_id)
        assert found is not None
        tags.update(found.tags)

    monkeypatch.setattr(DefaultRunLauncher, "launch_run", launch_run)
    launcher = LocalRunLauncher()
    launcher.register_instance(instance)
    # One that Dagster starts again has the tags of the run before it.
    run = instance.create_run_for_job(nothing, tags={MACHINE_TAG: "another boot 0.0"})
    launcher.launch_run(LaunchRunContext(run, None))
    assert tags[MACHINE_TAG] == tag_of_this_machine()


def process_with_tag(instance: dg.DagsterInstance, tag: str) -> RunProcess:
    found = process_of(instance, started_run(instance, 1, **{PROCESS_TAG: tag}))
    assert found is not None
    return found


def test_a_process_that_got_the_number_of_a_dead_one_is_not_taken_for_it(
    instance: dg.DagsterInstance,
) -> None:
    own = process_with_tag(instance, tag_of_this_process())
    assert own.alive
    assert not replace(own, latest_start=own.latest_start - 10).alive
    assert not replace(own, boot="the one before").alive


def test_a_process_is_known_by_the_tag_of_an_older_version(instance: dg.DagsterInstance) -> None:
    own = psutil.Process()
    tag = f"{socket.gethostname()} {own.pid}"
    assert process_with_tag(instance, f"{tag} {own.create_time()!r}").alive
    assert not process_with_tag(instance, f"{tag} {own.create_time() - 10!r}").alive


@pytest.mark.parametrize("step_seconds", [-3600.0, 3600.0])
def test_a_clock_that_is_set_kills_no_run(
    instance: dg.DagsterInstance,
    sleeper: "subprocess.Popen[bytes]",
    monkeypatch: pytest.MonkeyPatch,
    step_seconds: float,
) -> None:
    own = started_run(instance, 1, **{PROCESS_TAG: tag_of_this_process()})
    queued = started_run(instance, sleeper.pid, **{MACHINE_TAG: tag_of_this_machine()})
    boot_time = psutil.boot_time() + step_seconds
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot_time)
    end_dead_runs(instance)
    assert [status(instance, run) for run in (own, queued)] == [dg.DagsterRunStatus.STARTED] * 2


def test_a_process_may_have_any_name(instance: dg.DagsterInstance) -> None:
    rename = "open('/proc/self/comm', 'w').write('a) Z 1 (b')"
    command = [sys.executable, "-c", f"{rename}; print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = process_of(instance, started_run(instance, process.pid))
        assert found is not None
        assert found.alive
        process.kill()


def test_runs_whose_process_is_gone_are_ended_and_those_that_live_are_not(
    instance: dg.DagsterInstance, sleeper: "subprocess.Popen[bytes]"
) -> None:
    alive = started_run(instance, os.getpid())
    dead, cancelled = (started_run(instance, sleeper.pid) for _ in range(2))
    instance.report_run_canceling(cancelled)
    sleeper.kill()
    while psutil.Process(sleeper.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    end_dead_runs(instance)
    assert status(instance, alive) == dg.DagsterRunStatus.STARTED
    assert status(instance, dead) == dg.DagsterRunStatus.FAILURE
    assert status(instance, cancelled) == dg.DagsterRunStatus.CANCELED


def test_the_launcher_tells_dagster_whether_the_process_of_a_run_lives(
    instance: dg.DagsterInstance, sleeper: "subprocess.Popen[bytes]"
) -> None:
    launcher = LocalRunLauncher()
    launcher.register_instance(instance)
    run = started_run(instance, sleeper.pid)
    assert launcher.supports_check_run_worker_health
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    sleeper.kill()
    sleeper.wait()
    found = launcher.check_run_worker_health(run)
    assert found.status == WorkerStatus.NOT_FOUND
    assert f"process {sleeper.pid} of the run is gone" in str(found.msg)


@pytest.mark.parametrize(("limit", "retried"), [("3600", None), ("0", "0")])
def test_a_terminated_run_gets_the_signal_of_ctrl_c_and_an_overdue_one_is_not_retried(
    instance: dg.DagsterInstance,
    sleeper: "subprocess.Popen[bytes]",
    limit: str,
    retried: str | None,
) -> None:
    launcher = LocalRunLauncher()
    launcher.register_instance(instance)
    run = started_run(instance, sleeper.pid, **{"dagster/max_runtime": limit})
    assert launcher.terminate(run.run_id)
    assert sleeper.wait(10) != 0
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == dg.DagsterRunStatus.CANCELING
    assert found.tags.get("dagster/max_retries") == retried
    end_dead_runs(instance)
    assert not launcher.terminate(run.run_id)  # it is over


def test_runs_get_the_priority_time_and_retries_of_their_pipelines() -> None:
    one = OperationSettings(priority=2, retries=0, max_runtime_minutes=10)
    other = OperationSettings(priority=-1, retries=3, max_runtime_minutes=5)
    assert run_tags([one]) == {
        "dagster/priority": "2",
        "dagster/max_retries": "0",
        "dagster/max_runtime": "600",
    }
    assert run_tags([one, other]) == {
        "dagster/priority": "2",
        "dagster/max_retries": "3",
        "dagster/max_runtime": "900",
    }
    assert "dagster/max_runtime" not in run_tags([one, OperationSettings()])
    assert run_tags([]) == {}


def test_the_pipelines_of_a_run_are_those_of_its_assets_or_of_its_job(
    instance: dg.DagsterInstance,
) -> None:
    run = instance.create_run_for_job(nothing)
    assert pipelines_of(run) == {"nothing"}
    chosen = run.with_tags({})._replace(  # type: ignore[attr-defined]
        asset_selection=frozenset({dg.AssetKey(["a", "x"]), dg.AssetKey(["b", "x"])})
    )
    assert pipelines_of(chosen) == {"a", "b"}
