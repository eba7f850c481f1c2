"""What a retraining begins with, when the settings say so: the weights of a registered version.

Its generator lies in the registry; the discriminator that it was trained against is kept as an
artifact of its MLflow run, because without it the first steps would undo what was learned.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from gan_core.disk import sync_folder
from gan_core.errors import FoundryError
from gan_core.training.job import DISCRIMINATOR_FILE, JOB_FILE, START_FOLDER, TrainingJob

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from gan_core.config import NetworkSettings
    from gan_core.data.image_set import ImageSet
    from gan_core.generator import GeneratorConfig
    from pipelines.registry import RegisteredVersion

ORIGIN_FILE = "origin.json"
# Of the run in MLflow; another one when the discriminator's parameters change.
ARTIFACT_FOLDER = "discriminator/engine_4"
# Where versions are looked up, if not in the registry of this home: a reproduction has its own.
REGISTRY_VARIABLE = "GAN_FOUNDRY_START_REGISTRY"


class Origin(BaseModel):
    """The version that a training began with.

    Attributes:
        version: Of the registered model of the same name.
        sha256: Of its generator's weights.
        with_discriminator: Whether its discriminator was kept, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    sha256: str
    with_discriminator: bool

    @classmethod
    def read(cls, training: Path) -> "Origin | None":
        """Of a training folder; None if it began from scratch."""
        file = training / START_FOLDER / ORIGIN_FILE
        return cls.model_validate_json(file.read_text(encoding="utf-8")) if file.exists() else None


def pinned_start(model: str, start_from: str | int) -> str | int:
    """What `start_from` stands for now: the number of a version, or `scratch`.

    Raises:
        FoundryError: There is no such version, or the registry cannot be used.
    """
    from pipelines import tracking

    if start_from == "scratch":
        return start_from
    with tracking.tracking_errors(), _registry() as client:
        version = _find(client, model, start_from)
    return "scratch" if version is None else version.version


def fetch_start(
    model: str,
    start_from: str | int,
    network: "NetworkSettings",
    images: "ImageSet",
    training: Path,
) -> Origin | None:
    """Put the weights to begin with into a training folder, unless an earlier attempt did.

    Args:
        model: The registered model, which has the pipeline's name.
        start_from: As in the settings.
        network: Of the training.
        images: That it learns from.
        training: The training folder.

    Returns:
        What it begins with, or began with in an earlier attempt; None for random weights.

    Raises:
        FoundryError: There is no such version, it has other networks or images, or the registry
            cannot be used.
    """
    if start_from == "scratch":
        return None
    if (found := Origin.read(training)) is not None:
        return found
    if (training / JOB_FILE).exists() and TrainingJob.read(training).start_sha256 is None:
        return None  # an earlier attempt has begun with random weights
    from gan_core.data.hashing import file_sha256
    from gan_core.generator import load_generator
    from gan_core.released_files import WEIGHTS_FILE
    from pipelines import tracking

    with (
        tracking.tracking_errors(),
        _registry() as client,
    ):
        version = _find(client, model, start_from)
        if version is None:
            return None
        generator = load_generator(version.uri)
        _require_same(version.name, generator.config, network, images)
        folder = (training / START_FOLDER).with_suffix(".partial")
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
        folder.mkdir()
        generator.save(folder)
        origin = Origin(
            version=version.version,
            sha256=file_sha256(folder / WEIGHTS_FILE),
            with_discriminator=_fetch_discriminator(client, version, folder),
        )
        (folder / ORIGIN_FILE).write_text(origin.model_dump_json(indent=2), encoding="utf-8")
        sync_folder(folder)  # the job, which is written next, refers to it
        folder.rename(training / START_FOLDER)
    return origin


@contextlib.contextmanager
def _registry() -> "Iterator[MlflowClient]":
    """A client of the registry that has the versions, which `models:/` means meanwhile."""
    import mlflow

    from pipelines import home, tracking

    client = tracking.connect()
    elsewhere = os.environ.get(REGISTRY_VARIABLE)
    if not elsewhere:
        yield client
        return
    own = home.tracking_uri()
    try:
        mlflow.set_tracking_uri(elsewhere)
        yield mlflow.MlflowClient(elsewhere)
    finally:
        # MLflow has put the address into the environment, where all else would follow it.
        mlflow.set_tracking_uri(own)


def _find(client: "MlflowClient", model: str, start_from: str | int) -> "RegisteredVersion | None":
    from pipelines import ledger, registry

    known = registry.models(client)
    if isinstance(start_from, int):
        if model not in known:
            raise registry.no_such_model(model, known)
        return registry.get_version(client, model, start_from)
    champion = ledger.current_aliases(client, model).champion if model in known else None
    return None if champion is None else registry.get_version(client, model, champion)


def _require_same(
    name: str, config: "GeneratorConfig", network: "NetworkSettings", images: "ImageSet"
) -> None:
    shape = (images.shape, images.class_names if network.conditional else ())
    own = (config.shape, config.class_names if config.network.conditional else ())
    if config.network == network and own == shape:
        return
    what = "networks" if config.network != network else "images or classes"
    raise FoundryError(
        f"training.start_from is {name}, which has other {what} than this training; set it to "
        "scratch, or use the same ones."
    )


def _fetch_discriminator(
    client: "MlflowClient", version: "RegisteredVersion", folder: Path
) -> bool:
    if version.run_id is None or not client.list_artifacts(version.run_id, ARTIFACT_FOLDER):
        return False
    artifact = f"{ARTIFACT_FOLDER}/{DISCRIMINATOR_FILE}"
    with tempfile.TemporaryDirectory() as temporary:
        found = client.download_artifacts(version.run_id, artifact, temporary)
        shutil.copyfile(found, folder / DISCRIMINATOR_FILE)
    return True
