"""`registered_model`: the generator as a version in MLflow's registry, and the champion's alias."""

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from gan_core.device import choose_device
from gan_core.training.job import RELEASE_FOLDER
from pipelines.assets.stage import Stage, StageContext, StageResult
from pipelines.assets.tracked_training import tracked_run

if TYPE_CHECKING:
    from gan_core.evaluation.report import Evaluation
    from pipelines.registry import RegisteredVersion


@dataclass(frozen=True)
class Decision:
    """Which alias a candidate gets, and why, in one sentence."""

    alias: str
    reason: str


def decide(
    candidate: float, champion: float | None, champion_name: str, failed_checks: str = ""
) -> Decision:
    """The candidate becomes champion if it is at least as close to the real images.

    Args:
        candidate: Its Fréchet distance.
        champion: The present champion's, measured in the same way; None if there is none, or if
            it makes images of another shape.
        champion_name: For the sentence.
        failed_checks: What the blocking checks of the evaluation found, if anything.
    """
    from pipelines.registry import CHALLENGER, CHAMPION

    if failed_checks:
        return Decision(CHALLENGER, failed_checks)
    if not math.isfinite(candidate):
        return Decision(CHALLENGER, f"its distance is {candidate}")
    if champion is None or not math.isfinite(champion):
        return Decision(CHAMPION, f"there is no {champion_name} that it could be compared with")
    if candidate <= champion:
        return Decision(
            CHAMPION,
            f"its distance {candidate:.2f} is not above the {champion:.2f} of {champion_name}",
        )
    return Decision(
        CHALLENGER, f"its distance {candidate:.2f} is above the {champion:.2f} of {champion_name}"
    )


def _work(stage: StageContext) -> StageResult:
    from gan_core.data.hashing import file_sha256
    from gan_core.data.image_set import open_image_set
    from gan_core.evaluation.report import Evaluation
    from gan_core.generator import WEIGHTS_FILE
    from pipelines import registry
    from pipelines.model_card import model_card
    from pipelines.tracking import tracking_errors

    training = stage.upstream("generator")
    release = training / RELEASE_FOLDER
    evaluation = Evaluation.read(stage.upstream("evaluation"))
    images = open_image_set(stage.upstream("training_images"))
    weights = file_sha256(release / WEIGHTS_FILE)
    run = tracked_run(stage, training)
    model = stage.pipeline
    with tracking_errors(), registry.registering(model):
        known = registry.find_version(run.client, model, weights)
        if known is not None and known.aliases:
            alias = registry.CHAMPION if registry.CHAMPION in known.aliases else known.aliases[0]
            number, reason = known.version, "it was registered before"
        else:
            decision = _compare(stage, evaluation, registry.champion(run.client, model))
            alias, reason = decision.alias, decision.reason
            if known is not None:
                number = known.version
            else:
                card = model_card(model, stage.settings, evaluation, images.description, weights)
                tags = {
                    registry.WEIGHTS_TAG: weights,
                    registry.DISTANCE_TAG: f"{evaluation.frechet_distance:.6f}",
                    "floor": f"{evaluation.floor:.6f}",
                    "metric_card": evaluation.card.line,
                    "data_sha256": images.sha256,
                    "dagster.run_id": stage.run_id,
                    "decision": f"{alias}: {reason}",
                }
                number = registry.register_generator(model, release, run, card, tags)
            run.client.set_registered_model_alias(model, alias, str(number))
    return StageResult(
        f"{weights[:16]}-{number}",
        known is not None,
        {
            "model": model,
            "version": number,
            "alias": alias,
            "decision": f"{alias}: {reason}",
            "frechet_distance": evaluation.frechet_distance,
            "weights_sha256": weights,
            "registry_page": dg.MetadataValue.url(registry.registry_page(model, number)),
            "mlflow_run": dg.MetadataValue.url(run.url),
            "mlflow_run_id": run.run_id,
            "load": dg.MetadataValue.md(f'`load_generator("models:/{model}@{alias}")`'),
            "registered_at": dg.MetadataValue.timestamp(time.time()),
        },
    )


def _compare(
    stage: StageContext, evaluation: "Evaluation", champion: "RegisteredVersion | None"
) -> Decision:
    """Measure the present champion on the candidate's reference, latents and networks."""
    from gan_core.evaluation.card import require_same_cards
    from gan_core.generator import load_generator
    from pipelines.evaluator import open_evaluator

    candidate = evaluation.frechet_distance
    # Dagster's blocking checks stop a run; a person may still materialize this stage alone.
    failed = [check for check in evaluation.checks if not check.passed]
    sentence = "; ".join(f"{check.name} failed: {check.message}" for check in failed)
    if failed and stage.settings.evaluation.checks.blocking:
        return decide(candidate, None, "champion", sentence)
    if champion is None:
        return decide(candidate, None, "champion")
    device = choose_device(stage.settings.training.device)
    evaluator = open_evaluator(
        stage.pipeline,
        stage.settings,
        stage.upstream("training_images"),
        stage.upstream("feature_network"),
        device,
    )
    generator = load_generator(champion.uri, device)
    name = f"champion version {champion.version}"
    if generator.config.shape != evaluator.images.shape or generator.config.classes not in (
        0,
        evaluator.images.classes,
    ):
        return decide(candidate, None, f"{name} of the same shape")
    other, _ = evaluator.evaluate(generator)
    require_same_cards(evaluation.card, other.card)
    return decide(candidate, other.frechet_distance, name)


REGISTERED_MODEL = Stage(
    name="registered_model",
    work=_work,
    description="The generator in MLflow's registry: safetensors weights, model card, signature. "
    "It becomes champion if it is at least as close to the real images as the present one.",
    upstream=("samples", "evaluation", "generator", "feature_network", "training_images"),
    kinds=frozenset({"python", "mlflow"}),
)
