"""How a pipeline's evaluations are made: its networks, and what is known of its real images.

The real images are measured once for an image set, its networks, a sample count and a seed.
"""

from pathlib import Path

from gan_core.config import PipelineSettings
from gan_core.data.image_set import open_image_set
from gan_core.errors import FoundryError
from gan_core.evaluation.evaluator import Evaluator
from gan_core.evaluation.feature_network import FeatureNetwork
from gan_core.evaluation.real_images import Networks, RealImages, real_images_key
from pipelines.home import store_folder
from pipelines.store import open_stage, stage_path


def open_evaluator(
    pipeline: str,
    settings: PipelineSettings,
    image_folder: Path,
    network_folder: Path,
    device: str,
) -> Evaluator:
    """What measures images against those of a pipeline.

    Args:
        pipeline: Its name.
        settings: Its settings.
        image_folder: What `training_images` left.
        network_folder: What `feature_network` left.
        device: Where to compute.

    Raises:
        FoundryError: There are too few images, the network is of other images, or the second
            network's weights cannot be had.
    """
    images = open_image_set(image_folder)
    gate = FeatureNetwork.load(network_folder, device)
    if gate.config.shape != images.shape or gate.config.trained_on_sha256 not in (
        None,
        images.sha256,
    ):
        raise FoundryError(
            f"the latest {pipeline}/feature_network is of other images than the latest "
            f"{pipeline}/training_images; materialize {pipeline}/feature_network again."
        )
    networks = Networks.choose(gate, images, settings.evaluation, settings.feature_network)
    key = real_images_key(images, networks, settings.evaluation)
    path = stage_path(store_folder(), pipeline, "real_images", key)
    with open_stage(path) as folder:
        if folder.working:
            RealImages.measure(images, networks, settings.evaluation).save(folder.working)
    return Evaluator(images, networks, RealImages.load(path), settings.evaluation)
