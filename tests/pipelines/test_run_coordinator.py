"""What Dagster's queue writes on every run of a pipeline, as the shipped instance has it."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator.base import SubmitRunContext

from pipelines import pipeline_files
from pipelines.instance import open_quiet_instance
from pipelines.run_coordinator import PipelineRunCoordinator
from pipelines.run_launcher import LocalRunLauncher

OPERATION = {"priority": 7, "max_runtime_minutes": 90, "retries": 3}
TAGS = {"dagster/priority": "7", "dagster/max_runtime": "5400", "dagster/max_retries": "3"}
GENERATOR = dg.AssetKey(["faces", "generator"])


@dg.asset(key=GENERATOR)
def generator() -> None:
    """An asset of the pipeline `faces`."""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The shipped instance in a home of its own, beside a pipeline `faces`."""
    file = tmp_path / "defs" / "faces" / "defs.yaml"
    file.parent.mkdir(parents=True)
    attributes = {"data": {"source": "digits", "resolution": 16}, "operation": OPERATION}
    file.write_text(json.dumps({"type": pipeline_files.COMPONENT_TYPE, "attributes": attributes}))
    monkeypatch.setattr(pipeline_files, "DEFS_FOLDER", tmp_path / "defs")
    with open_quiet_instance() as opened:
        yield opened


def queued_tags(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, str]:
    """The tags that a run has in the queue."""
    context = SubmitRunContext(run, workspace=None)
    queued = instance.run_coordinator.submit_run(context)
    assert queued.status == dg.DagsterRunStatus.QUEUED
    return {key: queued.tags[key] for key in TAGS if key in queued.tags}


def make_run(
    instance: dg.DagsterInstance, job: str, *, assets: bool, tags: dict[str, str]
) -> dg.DagsterRun:
    location = RegisteredCodeLocationOrigin("gan_foundry")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job)
    defined = dg.define_asset_job(job, selection="*")
    definitions = dg.Definitions(assets=[generator], jobs=[defined])
    return instance.create_run_for_job(
        definitions.resolve_job_def(job),
        asset_selection=frozenset({GENERATOR}) if assets else None,
        tags=tags,
        remote_job_origin=origin,
    )


def test_the_shipped_instance_queues_and_launches_with_the_projects_own_classes(
    instance: dg.DagsterInstance,
) -> None:
    assert isinstance(instance.run_coordinator, PipelineRunCoordinator)
    assert isinstance(instance.run_launcher, LocalRunLauncher)


@pytest.mark.parametrize(("job", "assets"), [("faces", False), ("of_some_assets", True)])
def test_a_queued_run_has_its_pipelines_priority_longest_time_and_retries(
    instance: dg.DagsterInstance, job: str, assets: bool
) -> None:
    run = make_run(instance, job, assets=assets, tags={})
    assert queued_tags(instance, run) == TAGS


def test_what_was_said_of_one_run_is_not_overwritten(instance: dg.DagsterInstance) -> None:
    run = make_run(instance, "faces", assets=False, tags={"dagster/priority": "-1"})
    assert queued_tags(instance, run) == {**TAGS, "dagster/priority": "-1"}


def test_a_run_of_no_pipeline_is_queued_as_it_is(instance: dg.DagsterInstance) -> None:
    assert queued_tags(instance, make_run(instance, "nightly", assets=False, tags={})) == {}
