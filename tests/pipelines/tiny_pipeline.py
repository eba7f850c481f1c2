"""A pipeline whose every stage takes a moment, how to run it, and what a run left."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import PIL.Image
from dagster._core.storage.tags import PARENT_RUN_ID_TAG

from gan_core.config import PipelineSettings
from pipelines.components.gan_pipeline import STAGES
from pipelines.settings_overrides import RESOURCE_KEY, SettingsOverrides, run_config

Run = dg.ExecuteInProcessResult


def place_database(template: Path, home: Path) -> None:
    """Give a home its MLflow database."""
    (home / "mlflow").mkdir(parents=True)
    shutil.copyfile(template, home / "mlflow" / "mlflow.db")


def write_stripes(folder: Path) -> None:
    """Two classes of nearly white images, one striped across and one down, 40 each."""
    stream = np.random.default_rng(0)
    for name, axis in (("across", 0), ("down", 1)):
        (folder / name).mkdir(parents=True)
        for index in range(40):
            pixels = stream.integers(215, 256, (8, 8)).astype(np.uint8)
            np.moveaxis(pixels, axis, 0)[::4] -= 60
            PIL.Image.fromarray(pixels).save(folder / name / f"{index:02d}.png")


def write_noise(folder: Path) -> None:
    """60 images of coloured noise, without classes."""
    folder.mkdir(parents=True)
    stream = np.random.default_rng(0)
    for index in range(60):
        pixels = stream.integers(0, 256, (20, 20, 3)).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{index:02d}.png")


def tiny_settings(images: Path, resolution: int = 8, channels: int = 1) -> PipelineSettings:
    """Settings of a pipeline on a folder of images whose every stage takes a moment."""
    return PipelineSettings.model_validate(
        {
            "data": {
                "source": "image_folder",
                "path": str(images),
                "resolution": resolution,
                "channels": channels,
            },
            "network": {
                "latent_dim": 4,
                "generator_channels": [8, 4],
                "discriminator_channels": [4, 8],
            },
            "training": {
                "kimg": 0.32,
                "batch_size": 16,
                "generator_learning_rate": 0.02,
                "logging_interval_kimg": 0.08,
                "grid_interval_kimg": 0.16,
                "threads": 1,
                "monitoring": {"interval_kimg": 0.16, "samples": 32},
            },
            "feature_network": {"feature_dim": 8, "epochs": 2},
            # Nothing that is trained for so short a time would be released.
            "evaluation": {"checks": {"blocking": False}},
            "samples": {"count": 12},
        }
    )


@dataclass(frozen=True)
class TinyPipeline:
    """A pipeline with a Dagster instance of its own, in memory."""

    name: str
    settings: PipelineSettings
    instance: dg.DagsterInstance

    def run(self, *stages: str, parent: Run | None = None, **overrides: Any) -> Run:
        """Materialize some stages, or all.

        Args:
            stages: Their names.
            parent: The run that Dagster started again as this one.
            overrides: Of settings; in their names `__` stands for the dot.
        """
        assets = [stage.build_asset(self.name, self.settings, in_process=True) for stage in STAGES]
        values = {key.replace("__", "."): value for key, value in overrides.items()}
        return dg.materialize(
            assets,
            selection=[dg.AssetKey([self.name, stage]) for stage in stages] or "*",
            instance=self.instance,
            resources={RESOURCE_KEY: SettingsOverrides()},
            run_config={
                **run_config(values),
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            tags={PARENT_RUN_ID_TAG: parent.run_id} if parent else {},
            raise_on_error=False,
        )


@contextmanager
def open_pipeline(name: str, settings: PipelineSettings) -> Iterator[TinyPipeline]:
    """A pipeline that never ran."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield TinyPipeline(name, settings, instance)


def metadata(result: Run) -> dict[str, dict[str, Any]]:
    """What each stage of a successful run recorded, by stage and name."""
    assert result.success, failure(result)
    found = {}
    for event in result.get_asset_materialization_events():
        recorded = event.step_materialization_data.materialization
        found[recorded.asset_key.path[-1]] = {
            name: value.value for name, value in recorded.metadata.items()
        }
    return found


def data_versions(result: Run) -> dict[str, str]:
    """The data version of each stage of a run."""
    recorded = [
        event.step_materialization_data.materialization
        for event in result.get_asset_materialization_events()
    ]
    return {item.asset_key.path[-1]: item.tags["dagster/data_version"] for item in recorded}


def failure(result: Run) -> str:
    """The sentence with which the one failed stage of a run failed."""
    (event,) = result.get_step_failure_events()
    data = event.step_failure_data
    assert data.user_failure_data is not None, data.error.to_string()
    return str(data.user_failure_data.description)
