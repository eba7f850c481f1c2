"""`evaluation`: how far the generated images are from held-out ones, and what the checks say."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from gan_core.device import choose_device
from gan_core.training.job import JOURNAL_FILE, RELEASE_FOLDER
from gan_core.training.journal import read_journal
from pipelines.assets.stage import (
    CheckOutcome,
    Stage,
    StageContext,
    StageResult,
    inline_png,
)
from pipelines.assets.tracked_training import tracked_run
from pipelines.notifications import blocked_by_checks, tell
from pipelines.store import open_stage
from pipelines.tracking import tracking_errors

if TYPE_CHECKING:
    from gan_core.evaluation.report import Evaluation

BESIDE_REAL_FILE = "beside_real.png"
REFERENCE_FILE = "reference.npz"  # images that the registered version must make again
REFERENCE_COUNT = 64
CHECKS = {
    "collapse": "The samples show every class, as often and as varied as real images do.",
    "memorisation": "The samples are not copies of training images.",
    "broken_output": "The samples are images at all, with the contrast of real ones.",
}


def _work(stage: StageContext) -> StageResult:
    from gan_core.evaluation.card import library_versions
    from gan_core.evaluation.report import EVALUATION_FILE, PAGE_FILE, Evaluation
    from pipelines.blessing import Reference

    training = stage.upstream("generator")
    image_folder = stage.upstream("training_images")
    network_folder = stage.upstream("feature_network")
    run = tracked_run(stage, training)
    settings = stage.settings.evaluation
    made_of = (training.name, image_folder.name, network_folder.name, settings, library_versions())
    path = stage.path(*made_of)
    with open_stage(path) as folder:
        if folder.working:
            _evaluate(stage, training, image_folder, network_folder, folder.working)
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
        run.log_files([path / EVALUATION_FILE, path / PAGE_FILE], "evaluation")
    blocked = settings.checks.blocking and not found.passed
    if blocked and not stage.was_recorded(path.name):
        message = blocked_by_checks(stage.pipeline, found, stage.run_id, run.url)
        tell(stage.settings.notifications, message, stage.dagster.log)
    return StageResult(
        path.name,
        folder.reused,
        {
            **{name: estimate.value for name, estimate in estimates.items()},
            "intervals": {name: estimate.text for name, estimate in estimates.items()},
            **(
                {"distance_over_floor": found.frechet_distance / found.floor} if found.floor else {}
            ),
            "summary": dg.MetadataValue.md(_summary(found)),
            "beside_real": inline_png(
                (path / BESIDE_REAL_FILE).read_bytes(), "generated images above real ones"
            ),
            "page": dg.MetadataValue.path(path / PAGE_FILE),
            "card": found.card.line,
            "second_card": found.second.card.line,
            "device": Reference.load(path / REFERENCE_FILE).device,
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
                metadata={  # numbers of their own, which Dagster plots over the runs
                    **{
                        name: value
                        for name, value in check.values.items()
                        if value is not None and math.isfinite(value)
                    },
                    "bounds": check.bounds,
                },
            )
            for check in found.checks
        ),
    )


def _evaluate(
    stage: StageContext, training: Path, image_folder: Path, network_folder: Path, folder: Path
) -> None:
    """Measure the released generator; the folder gets everything that is found."""
    import numpy as np

    from gan_core.evaluation.page import write_page
    from gan_core.evaluation.pictures import beside_real
    from gan_core.generator import ReleasedGenerator
    from gan_core.image_grid import save_png
    from pipelines.blessing import Reference
    from pipelines.evaluator import open_evaluator

    device = choose_device(stage.settings.training.device)
    evaluator = open_evaluator(stage.pipeline, stage.settings, image_folder, network_folder, device)
    generator = ReleasedGenerator.load(training / RELEASE_FOLDER, device)
    evaluation, samples = evaluator.evaluate(generator)
    evaluation.write(folder)
    labels = evaluator.labels if generator.config.classes else None
    Reference(
        samples[:REFERENCE_COUNT],
        evaluator.labels[:REFERENCE_COUNT],
        stage.settings.evaluation.seed,
        device,
        training.name,
    ).save(folder / REFERENCE_FILE)
    write_page(
        folder,
        f"{stage.pipeline}: evaluation of {training.name}",
        evaluation,
        samples,
        labels,
        evaluator.images,
        generator,
        [row for _, row in read_journal(training / JOURNAL_FILE)],
    )
    save_png(
        np.concatenate(beside_real(samples, labels, evaluator.images)), folder / BESIDE_REAL_FILE
    )


def _summary(found: "Evaluation") -> str:
    """The numbers as a Markdown table."""
    rows = "\n".join(
        f"| {row['name']} | {row['value']} | {row['interval']} | {row['floor']} |"
        for row in found.number_rows()
    )
    return (
        f"{found.sentence}\n\n| number | value | 95 % interval | real training images |\n"
        f"|---|---|---|---|\n{rows}"
    )


EVALUATION = Stage(
    name="evaluation",
    work=_work,
    description="The Fréchet distance of generated to held-out images, beside the floor that real "
    "images reach, and how many of the classes the samples show.",
    upstream=("generator", "feature_network", "training_images"),
    kinds=frozenset({"python", "pytorch", "mlflow"}),
    checks=CHECKS,
    version="9",
)
