"""`gan-foundry evaluate`: images of anyone against a pipeline's real ones."""

from pathlib import Path

import dagster as dg

from gan_core.data.image_files import read_images
from gan_core.data.image_set import open_image_set
from gan_core.device import choose_device
from gan_core.errors import FoundryError
from gan_core.evaluation.report import Evaluation
from pipelines.evaluator import open_evaluator
from pipelines.home import store_folder
from pipelines.instance import open_quiet_instance
from pipelines.pipeline_files import load_pipeline
from pipelines.store import stage_path


def evaluate_images(place: Path, pipeline: str) -> Evaluation:
    """Score a folder, a zip or an `.npz` of images against a pipeline's held-out images.

    Args:
        place: The images; fitted as those that they are measured against were. The floor beside
            their numbers is that of as many training images.
        pipeline: Its name; its images and its feature network are those materialized last.

    Raises:
        FoundryError: There is no such pipeline, it was never run, the images cannot be read, or
            there is only one.
    """
    settings = load_pipeline(pipeline)
    with open_quiet_instance() as instance:
        image_folder = latest_folder(instance, pipeline, "training_images")
        network_folder = latest_folder(instance, pipeline, "feature_network")
    own = open_image_set(image_folder)
    # As the set was prepared, whatever the file says by now.
    height, width, channels = own.shape
    prepared = {"resolution": (height, width), "channels": channels, "fit": own.description["fit"]}
    data = settings.data.model_copy(update=prepared)
    images, labels = read_images(place, data, own.class_names)
    if len(images) < 2:  # told before the floor of as many is measured
        raise FoundryError(f"{place} has one image, but a distance needs at least 2; add images.")
    count = min(len(images), len(own.train))
    evaluation = settings.evaluation.model_copy(update={"samples": count})
    alike = settings.model_copy(update={"evaluation": evaluation})
    device = choose_device(settings.training.device)
    evaluator = open_evaluator(pipeline, alike, image_folder, network_folder, device)
    return evaluator.evaluate_images(images, labels)


def latest_folder(instance: dg.DagsterInstance, pipeline: str, stage: str) -> Path:
    """The folder that a stage left the latest time.

    Raises:
        FoundryError: It was never materialized, or its folder is gone.
    """
    event = instance.get_latest_materialization_event(dg.AssetKey([pipeline, stage]))
    found = event.asset_materialization if event else None
    tags = (found.tags if found else None) or {}
    folder = stage_path(store_folder(), pipeline, stage, tags.get("dagster/data_version", "none"))
    if not folder.exists():
        raise FoundryError(
            f"{pipeline}/{stage} was never materialized here; `gan-foundry run {pipeline}` does it."
        )
    return folder
