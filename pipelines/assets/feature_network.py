"""`feature_network`: the network in whose eyes generated images are compared with real ones."""

import dagster as dg

from gan_core.device import choose_device
from pipelines.assets.stage import Stage, StageContext, StageResult
from pipelines.devices import POOL
from pipelines.store import open_stage


def _work(stage: StageContext) -> StageResult:
    from gan_core.data.image_set import open_image_set
    from gan_core.evaluation.network_config import FeatureNetworkConfig, saved_weights_sha256

    images = open_image_set(stage.upstream("training_images"))
    settings = stage.settings.feature_network
    path = stage.path(images.sha256, settings)
    with open_stage(path) as folder:
        if folder.working:
            from gan_core.evaluation.feature_network import make_feature_network
            from gan_core.evaluation.reference import Reference

            with stage.devices(stage.settings.training.device):
                device = choose_device(stage.settings.training.device)
                network = make_feature_network(images, settings, device)
                network.save(folder.working)
                Reference.measure(network, images.train).save(folder.working)
    config = FeatureNetworkConfig.read(path)
    accuracy = config.held_out_accuracy
    return StageResult(
        path.name,
        folder.reused,
        {
            "kind": config.kind,
            "feature_dim": config.feature_dim,
            "trained_on": len(images.train) if config.classes else 0,
            **({} if accuracy is None else {"held_out_accuracy": accuracy}),
            "sha256": saved_weights_sha256(path),
            "folder": dg.MetadataValue.path(path),
        },
    )


FEATURE_NETWORK = Stage(
    name="feature_network",
    work=_work,
    description="The fixed network in whose feature space the generator is measured: a classifier "
    "of the training images, or a random network where they have no labels.",
    upstream=("training_images",),
    kinds=frozenset({"python", "pytorch"}),
    pool=POOL,
    version="3",
)
