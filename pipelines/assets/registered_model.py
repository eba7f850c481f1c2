"""`registered_model`: the generator as a version in MLflow's registry, and the gate before it."""

import datetime
import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from gan_core.config import PipelineSettings, fingerprint
from gan_core.device import choose_device
from gan_core.errors import FoundryError, UnreadableGeneratorError
from gan_core.training.job import (
    DISCRIMINATOR_FILE,
    JOURNAL_FILE,
    RELEASE_FOLDER,
    TrainingJob,
)
from gan_core.training.journal import read_journal
from pipelines.assets.evaluation import REFERENCE_FILE
from pipelines.assets.stage import Stage, StageContext, StageResult, inline_grid
from pipelines.assets.tracked_training import tracked_run
from pipelines.gate import Verdict, compare, refused_alone
from pipelines.machine import describe_machine
from pipelines.notifications import decided, tell
from pipelines.start_weights import ARTIFACT_FOLDER, Origin

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient

    from gan_core.data.image_set import ImageSet
    from gan_core.evaluation.comparison import Comparison
    from gan_core.evaluation.report import Evaluation
    from gan_core.generator import GeneratorConfig
    from pipelines.blessing import Reference
    from pipelines.ledger import Aliases
    from pipelines.registry import RegisteredVersion
    from pipelines.tracking import TrackedRun

GATE_FOLDER = "gate"  # of the comparison among the run's artifacts in MLflow
GATE_PICTURE = "candidate_and_champion.png"
PICTURE_PIXELS = 1000
ONLY_A_PERSON = "so that only a person can say which is better (gan-foundry promote)"
DECIDED_TAG = "gan_foundry.decided_on"  # fingerprint of what a decision rests on


@dataclass(frozen=True)
class Decision:
    """The gate's verdict with what it rests on.

    Attributes:
        verdict: Of the gate.
        comparison: With the champion; None where there was nothing to compare.
        pictures: Grids of candidate and champion side by side, uint8, shape (h, w, channels).
    """

    verdict: Verdict
    comparison: "Comparison | None" = None
    pictures: "np.ndarray | None" = None

    @property
    def numbers(self) -> dict[str, float]:
        """What was measured, for MLflow and the ledger."""
        if self.comparison is None:
            return {}
        difference = self.comparison.difference
        return {
            "candidate_distance": self.comparison.candidate.value,
            "champion_distance": self.comparison.champion.value,
            "difference": difference.value,
            "difference_low": difference.low,
            "difference_high": difference.high,
        }


def _work(stage: StageContext) -> StageResult:
    from gan_core.data.hashing import file_sha256
    from gan_core.data.image_set import open_image_set
    from gan_core.evaluation.report import Evaluation
    from gan_core.released_files import WEIGHTS_FILE
    from pipelines import ledger, registry
    from pipelines.blessing import Reference
    from pipelines.tracking import tracking_errors

    training, evaluation_folder = stage.upstream("generator"), stage.upstream("evaluation")
    evaluation = Evaluation.read(evaluation_folder)
    reference = Reference.load(evaluation_folder / REFERENCE_FILE)
    if reference.generator != training.name:
        raise FoundryError(
            f"the latest {stage.pipeline}/evaluation is of another generator than the latest "
            f"{stage.pipeline}/generator; materialize {stage.pipeline}/evaluation again."
        )
    images = open_image_set(stage.upstream("training_images"))
    if TrainingJob.read(training).image_set_sha256 != images.sha256:
        raise FoundryError(
            f"the latest {stage.pipeline}/generator was trained on other images than the latest "
            f"{stage.pipeline}/training_images; materialize {stage.pipeline}/generator and what "
            "follows it again."
        )
    weights = file_sha256(training / RELEASE_FOLDER / WEIGHTS_FILE)
    run = tracked_run(stage, training)
    model = stage.pipeline
    with tracking_errors(), registry.changing(model):
        known = registry.find_version(run.client, model, weights)
        version = known or _register(stage, run, evaluation, weights)
        if registry.BLESSED_TAG not in version.tags:
            _bless(run.client, version, reference)
        before = ledger.settle(run.client, model)
        basis = _basis(stage, before, evaluation_folder)
        decision = None
        sentence = _settled(version, before, basis)
        if sentence is None:
            decision = _decide(stage, before, evaluation, training / RELEASE_FOLDER)
            sentence = _carry_out(stage, run, version, before, decision)
            run.client.set_model_version_tag(model, str(version.version), DECIDED_TAG, basis)
        after = ledger.current_aliases(run.client, model)
    if decision is not None:
        message = decided(version, evaluation, before, after, sentence, stage.run_id, run.url)
        tell(stage.settings.notifications, message, stage.dagster.log)
    aliases = after.of(version.version)
    alias = aliases[0] if aliases else "none"
    return StageResult(
        f"{weights[:16]}-{version.version}",
        known is not None and decision is None,
        {
            "model": model,
            "version": version.version,
            "alias": alias,
            "decision": f"{alias}: {sentence}",
            "frechet_distance": evaluation.frechet_distance,
            **_shown(decision),
            "weights_sha256": weights,
            "registry_page": dg.MetadataValue.url(registry.registry_page(model, version.version)),
            "mlflow_run": dg.MetadataValue.url(run.url),
            "mlflow_run_id": run.run_id,
            "load": dg.MetadataValue.md(
                f'`load_generator("models:/{model}@{alias}")`'
                if aliases
                else f'`load_generator("{version.uri}")`'
            ),
            "registered_at": dg.MetadataValue.timestamp(time.time()),
        },
    )


def _register(
    stage: StageContext, run: "TrackedRun", evaluation: "Evaluation", weights: str
) -> "RegisteredVersion":
    """Make a version of the trained generator."""
    from gan_core.data.image_set import open_image_set
    from pipelines import registry
    from pipelines.model_card import model_card
    from pipelines.portable_settings import without_places

    image_folder, training = stage.upstream("training_images"), stage.upstream("generator")
    images, job = open_image_set(image_folder), TrainingJob.read(training)
    origin = Origin.read(training)
    settings = without_places(as_trained(stage.settings, job, origin))
    low, high = evaluation.gate.metrics["frechet_distance"].interval
    tags = {
        registry.WEIGHTS_TAG: weights,
        registry.DISTANCE_TAG: str(evaluation.frechet_distance),
        registry.INTERVAL_TAG: f"{low} {high}",
        registry.FLOOR_TAG: str(evaluation.floor),
        registry.CARD_TAG: evaluation.card.line,
        registry.DATA_TAG: images.sha256,
        registry.MACHINE_TAG: describe_machine(job.device),
        registry.BUDGETS_TAG: " ".join(map(repr, budgets(training))),
        "generator_key": training.name,
        "dagster.run_id": stage.run_id,
        **({registry.START_TAG: str(origin.version)} if origin else {}),
    }
    run.log_files([training / DISCRIMINATOR_FILE], ARTIFACT_FOLDER)
    number = registry.register_generator(
        stage.pipeline,
        training / RELEASE_FOLDER,
        run,
        model_card(stage.pipeline, settings, evaluation, images.description, weights),
        settings.model_dump_json(indent=2),
        tags,
    )
    return registry.get_version(run.client, stage.pipeline, number)


def as_trained(
    settings: PipelineSettings, job: TrainingJob, origin: Origin | None
) -> PipelineSettings:
    """The settings with what the job trained: those of this run may be others."""
    chosen = {
        "device": job.device,
        "precision": job.precision,
        "threads": job.threads,
        "start_from": origin.version if origin else "scratch",  # the champion is soon another one
    }
    training = job.training.model_copy(update=chosen)
    return settings.model_copy(update={"network": job.network, "training": training})


def budgets(training: Path) -> list[float]:
    """The budgets of a training in kimg: more than one where it was raised and continued."""
    rows = (row for _, row in read_journal(training / JOURNAL_FILE))
    totals = (row["total_kimg"] for row in rows if "total_kimg" in row)
    return [total for total, _ in itertools.groupby(totals)]


def _bless(client: "MlflowClient", version: "RegisteredVersion", reference: "Reference") -> None:
    """Try a version in a fresh process; without that it gets no alias."""
    from pipelines.blessing import bless
    from pipelines.registry import BLESSED_TAG

    bless(version.uri, reference)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    client.set_model_version_tag(version.model, str(version.version), BLESSED_TAG, now)


def _basis(stage: StageContext, aliases: "Aliases", evaluation_folder: Path) -> str:
    """Names what a decision rests on: the same basis is not decided on again."""
    settings = stage.settings
    return fingerprint(
        [
            stage.version,
            aliases.champion,
            evaluation_folder.name,
            settings.gate,
            settings.promotion,
            settings.evaluation.checks.blocking,
        ]
    )


def _settled(version: "RegisteredVersion", aliases: "Aliases", basis: str) -> str | None:
    """Why there is nothing to decide on a version, if there is not."""
    from pipelines.registry import DECISION_TAG, VETOED_TAG

    if VETOED_TAG in version.tags:
        return f"it was vetoed: {version.tags[VETOED_TAG]}"
    if version.version in (aliases.champion, aliases.previous):
        return "it was registered before"
    return version.tags[DECISION_TAG] if version.tags.get(DECIDED_TAG) == basis else None


def _decide(
    stage: StageContext, aliases: "Aliases", evaluation: "Evaluation", release: Path
) -> Decision:
    """Ask the gate; the champion is measured on the candidate's reference, latents and networks."""
    from gan_core.evaluation.card import require_same_cards
    from gan_core.evaluation.comparison import compare_generators
    from gan_core.evaluation.pictures import side_by_side
    from gan_core.generator import ReleasedGenerator, load_generator
    from pipelines.evaluator import open_evaluator

    refusal = refused_alone(evaluation, stage.settings)
    if aliases.champion is None:
        return Decision(Verdict(refusal is None, refusal or "there is no champion yet"))
    device = choose_device(stage.settings.training.device)
    evaluator = open_evaluator(
        stage.pipeline,
        stage.settings,
        stage.upstream("training_images"),
        stage.upstream("feature_network"),
        device,
    )
    name = f"champion version {aliases.champion}"
    try:
        champion = load_generator(f"models:/{stage.pipeline}/{aliases.champion}", device)
    except UnreadableGeneratorError as error:
        unreadable = f"{name} cannot be read, {ONLY_A_PERSON}: {str(error).rstrip('.')}"
        return Decision(Verdict(False, refusal or unreadable))
    if not comparable(champion.config, evaluator.images):
        incomparable = f"{name} makes images of another shape or other classes, {ONLY_A_PERSON}"
        return Decision(Verdict(False, refusal or incomparable))
    candidate = ReleasedGenerator.load(release, device)
    comparison, own, other = compare_generators(evaluator, candidate, champion)
    require_same_cards(evaluation.card, comparison.card)
    labels = evaluator.labels if candidate.config.classes else None
    verdict = compare(comparison, name, stage.settings.gate.tolerance)
    if refusal is not None:
        verdict = Verdict(False, f"{refusal}; {verdict.reason}")
    return Decision(verdict, comparison, side_by_side(own, other, labels))


def comparable(champion: "GeneratorConfig", images: "ImageSet") -> bool:
    """Whether a champion makes images like these: of their shape, and of their classes or none."""
    classes = champion.class_names if champion.classes else images.class_names
    return champion.shape == images.shape and classes == images.class_names


def _carry_out(
    stage: StageContext,
    run: "TrackedRun",
    version: "RegisteredVersion",
    before: "Aliases",
    decision: Decision,
) -> str:
    """Move the aliases, and write down why in the ledger and in MLflow; returns the reason."""
    from pipelines import ledger
    from pipelines.promotion import after_promotion
    from pipelines.registry import DECISION_TAG

    number, reason = version.version, decision.verdict.reason
    pictures = f"runs:/{run.run_id}/{GATE_FOLDER}/{GATE_PICTURE}"
    if not decision.verdict.passed:
        after = before.model_copy(update={"challenger": number})
    elif stage.settings.promotion == "manual":
        after = before.model_copy(update={"challenger": number})
        reason += (
            f"; it waits for `gan-foundry promote {stage.pipeline} {number}` (promotion: manual)"
        )
    else:
        after = after_promotion(before, number)
    _log(run, decision, reason)
    run.client.set_model_version_tag(version.model, str(number), DECISION_TAG, reason)
    ledger.record(
        run.client,
        version.model,
        "register",
        number,
        after,
        by=f"run {stage.run_id}",
        why=reason,
        numbers=decision.numbers,
        pictures=pictures if decision.comparison else None,
    )
    return reason


def _log(run: "TrackedRun", decision: Decision, reason: str) -> None:
    """The gate's part of the MLflow run."""
    from gan_core.image_grid import display_scale, save_png

    run.set_tags({"gate.decision": reason})
    if decision.comparison is None or decision.pictures is None:
        return
    run.log_metrics({f"gate/{name}": value for name, value in decision.numbers.items()})
    with tempfile.TemporaryDirectory() as temporary:
        numbers = Path(temporary) / "comparison.json"
        numbers.write_text(decision.comparison.model_dump_json(indent=2), encoding="utf-8")
        picture = Path(temporary) / GATE_PICTURE
        save_png(decision.pictures, picture, display_scale(decision.pictures, PICTURE_PIXELS))
        run.log_files([numbers, picture], GATE_FOLDER)


def _shown(decision: Decision | None) -> dict[str, Any]:
    """The gate's part of the asset's metadata."""
    if decision is None or decision.comparison is None or decision.pictures is None:
        return {}
    return {
        **decision.numbers,
        "difference_interval": decision.comparison.difference.text,
        "candidate_and_champion": inline_grid(
            decision.pictures, "candidate on the left, champion on the right, same latents"
        ),
    }


REGISTERED_MODEL = Stage(
    name="registered_model",
    work=_work,
    description="The generator in MLflow's registry: safetensors weights, model card, signature. "
    "It becomes champion if it is surely better than the present one, or not worse within the "
    "tolerance, and every blocking check holds; else it stays as challenger.",
    upstream=("samples", "evaluation", "generator", "feature_network", "training_images"),
    kinds=frozenset({"python", "mlflow"}),
    version="2",
    ages=True,
)
