"""`evaluation`: how far the generated images are from held-out ones, and what the checks say."""

import dagster as dg

from gan_core.device import choose_device
from gan_core.training.job import RELEASE_FOLDER
from pipelines.assets.stage import CheckOutcome, Stage, StageContext, StageResult
from pipelines.assets.tracked_training import tracked_run
from pipelines.store import open_stage
from pipelines.tracking import tracking_errors

CHECKS = {
    "collapse": "The samples show every class, as often and as varied as real images do.",
    "memorisation": "The samples are not copies of training images.",
    "broken_output": "The samples are images at all, with the contrast of real ones.",
}


def _work(stage: StageContext) -> StageResult:
    from gan_core.evaluation.report import EVALUATION_FILE, Evaluation
    from gan_core.generator import ReleasedGenerator
    from pipelines.evaluator import open_evaluator

    training = stage.upstream("generator")
    image_folder = stage.upstream("training_images")
    network_folder = stage.upstream("feature_network")
    run = tracked_run(stage, training)
    settings = stage.settings.evaluation
    device = choose_device(stage.settings.training.device)
    path = stage.path(training.name, image_folder.name, network_folder.name, settings)
    with open_stage(path) as folder:
        if folder.working:
            evaluator = open_evaluator(
                stage.pipeline, stage.settings, image_folder, network_folder, device
            )
            generator = ReleasedGenerator.load(training / RELEASE_FOLDER, device)
            evaluation, _ = evaluator.evaluate(generator)
            evaluation.write(folder.working)
    found = Evaluation.read(path)
    estimates = found.estimates()
    with tracking_errors():
        run.log_metrics(
            {
                f"evaluation/{name}{end}": number
                for name, estimate in estimates.items()
                for end, number in (
                    ("", estimate.value),
                    ("_low", estimate.low),
                    ("_high", estimate.high),
                )
            }
        )
        run.set_tags({"evaluation.card": found.card.line})
        run.log_files([path / EVALUATION_FILE], "evaluation")
    return StageResult(
        path.name,
        folder.reused,
        {
            **{name: estimate.value for name, estimate in estimates.items()},
            "intervals": {name: estimate.text for name, estimate in estimates.items()},
            **(
                {"distance_over_floor": found.frechet_distance / found.floor} if found.floor else {}
            ),
            "card": found.card.line,
            "second_card": found.second.card.line,
            "device": device,
            "class_shares": found.class_shares,
            "report": dg.MetadataValue.json(found.summary()),
            "mlflow_run": dg.MetadataValue.url(run.url),
            "folder": dg.MetadataValue.path(path),
        },
        tuple(
            CheckOutcome(
                name=check.name,
                passed=check.passed,
                blocking=settings.checks.blocking,
                message=check.message,
                metadata={
                    "values": check.values,
                    "bounds": check.bounds,
                },
            )
            for check in found.checks
        ),
    )


EVALUATION = Stage(
    name="evaluation",
    work=_work,
    description="The Fréchet distance of generated to held-out images, beside the floor that real "
    "images reach, and how many of the classes the samples show.",
    upstream=("generator", "feature_network", "training_images"),
    kinds=frozenset({"python", "pytorch", "mlflow"}),
    checks=CHECKS,
    version="2",
)
