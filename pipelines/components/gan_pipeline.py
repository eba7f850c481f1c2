"""`GanPipeline`: the component whose instances are the pipelines, one YAML file each."""

from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster.components.component_scaffolding import scaffold_component
from pydantic import BaseModel

from gan_core.config import PipelineSettings
from pipelines.alias_job import build_alias_job
from pipelines.assets.evaluation import EVALUATION
from pipelines.assets.feature_network import FEATURE_NETWORK
from pipelines.assets.generator import GENERATOR
from pipelines.assets.raw_images import RAW_IMAGES
from pipelines.assets.registered_model import REGISTERED_MODEL
from pipelines.assets.samples import SAMPLES
from pipelines.assets.training_images import TRAINING_IMAGES
from pipelines.new_data import build_new_data_sensor
from pipelines.pipeline_files import resolve_paths
from pipelines.schedules import build_schedule

STAGES = (
    RAW_IMAGES,
    TRAINING_IMAGES,
    FEATURE_NETWORK,
    GENERATOR,
    EVALUATION,
    SAMPLES,
    REGISTERED_MODEL,
)


class GanPipelineScaffolder(dg.Scaffolder[Any]):
    """Starts a pipeline on a folder of one's own images."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        """Write `defs.yaml` with the settings that a person has to choose."""
        attributes = {
            "description": "Images of my own.",
            "data": {
                "source": "image_folder",
                "path": "~/images",
                "resolution": 32,
                "channels": 3,
                "fit": "crop",
            },
            "training": {"kimg": 200},
        }
        scaffold_component(request, attributes)


@dg.scaffold_with(GanPipelineScaffolder)
@dataclass
class GanPipeline(dg.Component):
    """From images to a registered generator; every attribute is described in docs/settings.md."""

    settings: PipelineSettings

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The schema of the YAML's attributes."""
        return PipelineSettings

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "GanPipeline":
        """An instance from validated attributes."""
        assert isinstance(attributes, PipelineSettings)  # noqa: S101  # Dagster validated it
        return cls(resolve_paths(attributes, context.path))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The pipeline's assets and its job; the folder's name is the pipeline's."""
        return build_pipeline(context.path.name, self.settings)


def build_pipeline(
    name: str, settings: PipelineSettings, *, in_process: bool = False
) -> dg.Definitions:
    """The assets of one pipeline, its jobs, and what starts them without anybody.

    Args:
        name: The pipeline's.
        settings: Its own.
        in_process: As `Stage.build_asset`.

    Raises:
        FoundryError: A setting is wrong in a way that only Dagster knows.
    """
    assets = [stage.build_asset(name, settings, in_process=in_process) for stage in STAGES]
    job = dg.define_asset_job(
        name, dg.AssetSelection.groups(name), description=settings.description
    )
    return dg.Definitions(
        assets=assets,
        jobs=[job, build_alias_job(name)],
        schedules=[build_schedule(name, settings.schedule, job)] if settings.schedule.cron else [],
        sensors=[build_new_data_sensor(name, settings, job)] if settings.on_new_data else [],
    )
