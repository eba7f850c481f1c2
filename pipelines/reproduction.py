"""`gan-foundry reproduce`: a registered version trained again from what the registry recorded."""

import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
from pydantic import ValidationError

from gan_core.config import PipelineSettings, apply_overrides, describe_validation_error
from gan_core.device import choose_device
from gan_core.errors import FoundryError
from gan_core.training_settings import TrainingSettings
from pipelines import home, registry, tracking
from pipelines.devices import devices_to_oneself
from pipelines.environment import environment
from pipelines.machine import describe_machine
from pipelines.pipeline_files import NAME, load_pipeline, pipeline_files
from pipelines.registry import RegisteredVersion
from pipelines.run import PipelineRun, RunInterruptedError, materialize
from pipelines.start_weights import REGISTRY_VARIABLE

STAGES = ("raw_images", "training_images", "feature_network", "generator")


@dataclass(frozen=True)
class Reproduction:
    """What came out of training a version again.

    Attributes:
        version: Which one.
        weights_sha256: Of the new weights.
        frechet_distance: Of the new generator, measured as the version was.
        machine: Where it was trained now.
        seconds: That it took.
    """

    version: RegisteredVersion
    weights_sha256: str
    frechet_distance: float
    machine: str
    seconds: float

    @property
    def same_weights(self) -> bool:
        """Whether the weights are the same bits."""
        return self.weights_sha256 == self.version.tags[registry.WEIGHTS_TAG]

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the version's distance."""
        low, high = self.version.tags[registry.INTERVAL_TAG].split()
        return float(low), float(high)

    @property
    def within_interval(self) -> bool:
        """Whether the new distance lies in the version's interval."""
        low, high = self.interval
        return low <= self.frechet_distance <= high

    def summary(self) -> dict[str, Any]:
        """As plain values."""
        tags = self.version.tags
        return {
            "model": self.version.model,
            "version": self.version.version,
            "same_weights": self.same_weights,
            "weights_sha256": self.weights_sha256,
            "registered_weights_sha256": tags[registry.WEIGHTS_TAG],
            "frechet_distance": self.frechet_distance,
            "registered_frechet_distance": float(tags[registry.DISTANCE_TAG]),
            "registered_frechet_distance_ci": list(self.interval),
            "within_interval": self.within_interval,
            "machine": self.machine,
            "registered_machine": tags[registry.MACHINE_TAG],
            "seconds": self.seconds,
        }

    @property
    def sentence(self) -> str:
        """For people."""
        low, high = self.interval
        if self.same_weights:
            return f"{self.version.name} is reproduced: the weights are the same bits"
        where = f"{'within' if self.within_interval else 'OUTSIDE'} {low:.2f} to {high:.2f}"
        recorded = self.version.tags[registry.MACHINE_TAG]
        machines = (
            "on the same kind of machine"
            if self.machine == recorded
            else f"on {self.machine}, where it was {recorded}"
        )
        return (
            f"{self.version.name}: other weights {machines}; the distance is "
            f"{self.frechet_distance:.2f}, {where}"
        )


def reproduce(model: str, number: int, images: Path | None = None) -> Reproduction:
    """Train a version again, in a home of its own that is removed when it is done.

    Args:
        model: The registered model.
        number: The version.
        images: Where one's own images are now, for a version that was trained on such; by default
            where the pipeline of this name has them.

    Raises:
        FoundryError: There is no such version, it was registered without what it takes, its images
            are not there, or they are others than those of the version.
        RunInterruptedError: It was interrupted; what was done is kept.
    """
    with tracking.tracking_errors():
        client = registry.connect_for_reading()
        known = registry.models(client) if client else []
        if client is None or model not in known:
            raise registry.no_such_model(model, known)
        version = registry.get_version(client, model, number)
        if not re.fullmatch(NAME, model):
            raise FoundryError(
                f"the model {model} has a name that no pipeline can have, as a copy may; reproduce "
                "the version that was copied."
            )
        settings = _recorded_settings(version, images)
    start = time.monotonic()
    try:
        with _own_home(version, settings.training):
            run = _train_again(version, settings)
    except RunInterruptedError:
        raise RunInterruptedError(
            f"interrupted; `gan-foundry reproduce {model} {number}` again goes on from here."
        ) from None
    found = run.metadata
    return Reproduction(
        version,
        found["generator"]["weights_sha256"],
        found["evaluation"]["frechet_distance"],
        describe_machine(settings.training.device),
        time.monotonic() - start,
    )


def _recorded_settings(version: RegisteredVersion, images: Path | None) -> PipelineSettings:
    import mlflow

    from gan_core.generator import REGISTERED_FOLDER

    needed = (registry.WEIGHTS_TAG, registry.INTERVAL_TAG, registry.DATA_TAG, registry.MACHINE_TAG)
    missing = [tag for tag in needed if tag not in version.tags]
    if missing:
        raise FoundryError(
            f"{version.name} was registered without {', '.join(missing)}, so it cannot be "
            "reproduced; train it anew."
        )
    file = f"{version.uri}/{REGISTERED_FOLDER}/{registry.SETTINGS_FILE}"
    with tempfile.TemporaryDirectory() as temporary:  # MLflow's own would stay
        copy = Path(mlflow.artifacts.download_artifacts(file, dst_path=temporary))
        text = copy.read_text(encoding="utf-8")
    try:
        settings = PipelineSettings.model_validate_json(text)
    except ValidationError as error:
        raise FoundryError(
            f"{version.name} was registered with settings that this version of the project does "
            f"not know ({describe_validation_error(error)}); reproduce it with the version that "
            "registered it."
        ) from None
    here = load_pipeline(version.model) if version.model in pipeline_files() else None
    found: dict[str, Any] = {}
    if settings.training.device == "cuda" and choose_device("auto") == "cpu":
        found["training.device"] = "cpu"  # then the distance judges
    if settings.feature_network.weights is not None:
        found["feature_network.weights"] = here and here.feature_network.weights
    if here and here.data.archive and here.data.sha256 == settings.data.sha256:
        found["data.archive"] = here.data.archive  # with what opens it
    if settings.data.path is not None:
        own = here.data.path if here else None
        place = images or (Path(own) if own else None)
        if place is None:
            raise FoundryError(
                f"{version.name} was trained on images in a folder {settings.data.path!r}; say "
                "where they are with --images."
            )
        found["data.path"] = str(home.absolute_path(str(place), "--images"))
    return apply_overrides(settings, found, "reproduce")


def _train_again(version: RegisteredVersion, settings: PipelineSettings) -> PipelineRun:
    """Materialize up to the generator, once for each budget, and then evaluate it."""
    model = version.model
    data = materialize(model, settings, {}, STAGES[:2]).metadata["training_images"]["sha256"]
    if data != version.tags[registry.DATA_TAG]:
        raise FoundryError(
            f"the images of {version.name} have changed since: their hash is {data}, and was "
            f"{version.tags[registry.DATA_TAG]}; bring the old ones back."
        )
    overrides: dict[str, Any] = {"evaluation.checks.blocking": False}
    for budget in version.tags[registry.BUDGETS_TAG].split():
        overrides["training.kimg"] = float(budget)
        materialize(model, settings, overrides, STAGES)
    return materialize(model, settings, overrides, (*STAGES, "evaluation"))


@contextlib.contextmanager
def _own_home(version: RegisteredVersion, training: TrainingSettings) -> Iterator[None]:
    """Let everything be written below a folder of its own; on an error it stays, to go on from."""
    folder = home.reproduction_folder(version.model, version.version)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            filelock.FileLock(folder.with_name(f"{folder.name}.lock"), timeout=0),
            devices_to_oneself(training.device, training.processes, _wait),
        ):
            folder.mkdir(exist_ok=True)
            # Each attempt that ended well has had another name: MLflow keeps databases open.
            left = sorted(path for path in folder.iterdir() if path.is_dir())
            place = left[0] if left else Path(tempfile.mkdtemp(dir=folder))
            own = {
                "DAGSTER_HOME": str(place),
                "MLFLOW_TRACKING_URI": None,
                REGISTRY_VARIABLE: home.tracking_uri(),
            }
            with environment(own):
                yield
            shutil.rmtree(folder)
    except filelock.Timeout as error:
        raise FoundryError(
            f"{version.name} is being reproduced by another process; wait for it."
        ) from error


def _wait() -> None:
    from pipelines.progress import publish

    publish("waiting", "reproduce")
