"""`evaluation`: how far the generated images are from held-out ones."""

import dagster as dg

from gan_core.device import choose_device
from gan_core.training.job import RELEASE_FOLDER
from pipelines.assets.stage import Stage, StageContext, StageResult
from pipelines.assets.tracked_training import tracked_run
from pipelines.store import open_stage
from pipelines.tracking import tracking_errors


def _work(stage: StageContext) -> StageResult:
    from gan_core.data.image_set import open_image_set
    from gan_core.evaluation.feature_network import FeatureNetwork
    from gan_core.evaluation.report import EVALUATION_FILE, Evaluation, evaluate
    from gan_core.generator import ReleasedGenerator

    training = stage.upstream("generator")
    image_folder = stage.upstream("training_images")
    network_folder = stage.upstream("feature_network")
    run = tracked_run(stage, training)
    settings = stage.settings.evaluation
    device = choose_device(stage.settings.training.device)
    path = stage.path(training.name, image_folder.name, network_folder.name, settings)
    with open_stage(path) as folder:
        if folder.working:
            evaluate(
                ReleasedGenerator.load(training / RELEASE_FOLDER, device),
                open_image_set(image_folder),
                FeatureNetwork.load(network_folder, device),
                settings,
            ).write(folder.working)
    found = Evaluation.read(path)
    metrics = {"frechet_distance": found.frechet_distance, "floor": found.floor}
    if found.class_coverage is not None:
        metrics["class_coverage"] = found.class_coverage
    if found.label_agreement is not None:
        metrics["label_agreement"] = found.label_agreement
    with tracking_errors():
        run.log_metrics({f"evaluation/{name}": value for name, value in metrics.items()})
        run.set_tags({"evaluation.card": found.card.line})
        run.log_files([path / EVALUATION_FILE], "evaluation")
    return StageResult(
        path.name,
        folder.reused,
        {
            **metrics,
            **(
                {"distance_over_floor": found.frechet_distance / found.floor} if found.floor else {}
            ),
            "card": found.card.line,
            "device": device,
            "class_shares": dict(found.class_shares),
            "report": dg.MetadataValue.json(found.model_dump(mode="json")),
            "mlflow_run": dg.MetadataValue.url(run.url),
            "folder": dg.MetadataValue.path(path),
        },
    )


EVALUATION = Stage(
    name="evaluation",
    work=_work,
    description="The Fréchet distance of generated to held-out images, beside the floor that real "
    "images reach, and how many of the classes the samples show.",
    upstream=("generator", "feature_network", "training_images"),
    kinds=frozenset({"python", "pytorch", "mlflow"}),
)
