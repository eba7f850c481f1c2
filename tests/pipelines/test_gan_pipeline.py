"""The component: what Dagster shows of a pipeline, and how a new one is added."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from gan_core.errors import FoundryError
from pipelines import definitions, pipeline_files
from pipelines.components import GanPipeline
from pipelines.home import PROJECT
from pipelines.settings_overrides import RESOURCE_KEY, SettingsOverrides
from tests.conftest import copy_project

UPSTREAM = {
    "raw_images": set(),
    "training_images": {"raw_images"},
    "feature_network": {"training_images"},
    "generator": {"training_images", "feature_network"},
    "evaluation": {"generator", "feature_network", "training_images"},
    "samples": {"generator", "evaluation"},
    "registered_model": {
        "samples",
        "evaluation",
        "generator",
        "feature_network",
        "training_images",
    },
}
PIPELINES = sorted(pipeline_files.pipeline_files())


@pytest.fixture(scope="module")
def shipped() -> dg.Definitions:
    return definitions.defs()


def specs(loaded: dg.Definitions, pipeline: str) -> dict[str, dg.AssetSpec]:
    return {
        spec.key.path[1]: spec
        for spec in loaded.resolve_all_asset_specs()
        if spec.key.path[0] == pipeline
    }


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_pipeline_is_the_chain_of_its_stages(shipped: dg.Definitions, pipeline: str) -> None:
    found = specs(shipped, pipeline)
    upstream = {
        name: {dep.asset_key.path[1] for dep in spec.deps if dep.asset_key.path[0] == pipeline}
        for name, spec in found.items()
    }
    assert upstream == UPSTREAM
    assert all(dep.asset_key.path[0] == pipeline for spec in found.values() for dep in spec.deps)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_pipelines_assets_are_one_described_group(shipped: dg.Definitions, pipeline: str) -> None:
    for spec in specs(shipped, pipeline).values():
        assert spec.group_name == pipeline
        assert "python" in spec.kinds
        assert spec.description.endswith(".")
        assert spec.code_version


def test_stages_show_what_they_are_made_with(shipped: dg.Definitions) -> None:
    found = specs(shipped, "digits")
    assert {"pytorch", "mlflow"} <= found["generator"].kinds
    assert "pandas" in found["raw_images"].kinds
    assert "mlflow" in found["registered_model"].kinds


def test_trainings_of_all_pipelines_wait_for_one_device(shipped: dg.Definitions) -> None:
    for pipeline in PIPELINES:
        pools = {
            stage: shipped.get_assets_def(dg.AssetKey([pipeline, stage])).op.pool
            for stage in UPSTREAM
        }
        assert pools["generator"] == "gpu"
        assert pools["raw_images"] is None


def test_every_pipeline_has_a_job_of_its_name_with_all_its_stages(shipped: dg.Definitions) -> None:
    for pipeline in PIPELINES:
        job = shipped.resolve_job_def(pipeline)
        keys = {tuple(key.path) for key in job.asset_layer.executable_asset_keys}
        assert keys == {(pipeline, stage) for stage in UPSTREAM}
        assert job.description == pipeline_files.load_pipeline(pipeline).description


def test_failures_are_told_as_soon_as_the_daemon_runs(shipped: dg.Definitions) -> None:
    sensor = shipped.resolve_sensor_def("notify_of_failures")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 10


def test_a_wrong_key_fails_the_load_with_a_sentence_that_names_file_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "faces" / "defs.yaml"
    file.parent.mkdir()
    file.write_text(
        f"type: {pipeline_files.COMPONENT_TYPE}\n"
        "attributes:\n  data: {source: digits, resolution: 16}\n  training: {epochs: 3}\n"
    )
    monkeypatch.setattr(pipeline_files, "DEFS_FOLDER", tmp_path)
    with pytest.raises(FoundryError, match=r"training\.epochs is not a setting") as caught:
        definitions.defs()
    assert str(file) in str(caught.value)


def test_a_component_loads_from_its_file_with_paths_taken_from_its_folder() -> None:
    contents = {
        "type": pipeline_files.COMPONENT_TYPE,
        "attributes": {"data": {"source": "image_folder", "path": "pictures", "resolution": 16}},
    }
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.scaffold_component(
            component_cls=GanPipeline, defs_path="faces", defs_yaml_contents=contents
        )
        with sandbox.load_component_and_build_defs(defs_path=folder) as (component, loaded):
            assert isinstance(component, GanPipeline)
            assert component.settings == pipeline_files.read_pipeline_file(folder / "defs.yaml")
            assert component.settings.data.path == str((folder / "pictures").resolve())
            resources = dg.Definitions(resources={RESOURCE_KEY: SettingsOverrides()})
            assert set(specs(dg.Definitions.merge(loaded, resources), "faces")) == set(UPSTREAM)


@pytest.fixture
def copied_project(tmp_path: Path) -> Path:
    """A copy of the project, which a test may change."""
    return copy_project(tmp_path / "project")


def test_a_scaffolded_pipeline_loads_beside_the_shipped_ones(copied_project: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(copied_project),
        "HOME": str(copied_project.parent),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def run(*command: str) -> str:
        done = subprocess.run(
            command,
            cwd=copied_project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("dg", "scaffold", "defs", pipeline_files.COMPONENT_TYPE, "my_faces")
    code = (
        "import json, pipelines; from pipelines.definitions import defs;"
        "print(json.dumps([pipelines.__file__,"
        " [job.name for job in defs().resolve_all_job_defs()]]))"
    )
    loaded_from, jobs = json.loads(run(sys.executable, "-c", code))
    assert Path(loaded_from).is_relative_to(copied_project)
    assert {"my_faces", *PIPELINES} <= set(jobs)
    assert not (PROJECT / "pipelines" / "defs" / "my_faces").exists()
