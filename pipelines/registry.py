"""MLflow's model registry: what a registered generator consists of, its versions and aliases."""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

import gan_core
from gan_core.errors import FoundryError
from pipelines import home, tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from gan_core.generator import ReleasedGenerator

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
WEIGHTS_TAG = "gan_foundry.weights_sha256"
BLESSED_TAG = "gan_foundry.blessed"  # when a fresh process loaded it and made the same images
VETOED_TAG = "gan_foundry.vetoed"  # why a person does not want it
DECISION_TAG = "decision"
DISTANCE_TAG, INTERVAL_TAG = "frechet_distance", "frechet_distance_ci"
FLOOR_TAG, CARD_TAG = "floor", "metric_card"
DATA_TAG = "data_sha256"
MACHINE_TAG = "gan_foundry.machine"  # what the weights' bits depend on beside the settings
START_TAG = "gan_foundry.started_from"  # the version whose weights a training began with
BUDGETS_TAG = "gan_foundry.budgets_kimg"  # of a training that was continued: each in turn
SETTINGS_FILE = "settings.json"
MODEL_CARD_FILE = "README.md"
LONGEST_DESCRIPTION = 5000  # characters, in MLflow's databases

# What of gan_core a generator needs to be rebuilt and sampled; it travels with the model.
CARRIED_FILES = (
    "__init__.py",
    "config.py",
    "errors.py",
    "evaluation_settings.py",
    "generator.py",
    "networks/__init__.py",
    "networks/convolution.py",
    "networks/dcgan.py",
    "networks/pixels.py",
    "networks/players.py",
    "networks/resnet.py",
    "notification_settings.py",
    "operation_settings.py",
    "released_files.py",
    "serving.py",
    "settings_base.py",
    "sweep_settings.py",
    "training_settings.py",
)
SERVING_REQUIREMENTS = ("mlflow", "numpy", "pydantic", "safetensors", "torch")


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of a registered generator."""

    model: str
    version: int
    aliases: tuple[str, ...]
    run_id: str | None
    source: str
    created_milliseconds: int
    tags: Mapping[str, str]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.model} version {self.version}"

    @property
    def uri(self) -> str:
        """The address that `load_generator` and MLflow take."""
        return f"models:/{self.model}/{self.version}"


def connect_for_reading() -> "MlflowClient | None":
    """A client of the registry, or None where no local database was made yet: none is made now."""
    if home.tracking_uri() == home.local_tracking_uri() and not home.local_database().exists():
        return None
    return tracking.connect()


def register_generator(
    model: str,
    release: Path,
    run: tracking.TrackedRun,
    card: str,
    settings: str,
    tags: Mapping[str, str],
) -> int:
    """Register a released generator as a new version.

    Args:
        model: The registered model's name.
        release: Folder with `generator.safetensors` and `config.json`.
        run: The MLflow run of its training.
        card: The model card, Markdown.
        settings: Those of the pipeline, JSON without places of this machine.
        tags: Of the version.

    Returns:
        The version's number.
    """
    from mlflow.entities import LoggedModelOutput

    # Saved first and then sent: `log_model` would write the store's place into the model.
    with tempfile.TemporaryDirectory() as temporary:
        files = Path(temporary) / "model"
        _save_model(files, release, card, settings)
        logged = run.client.create_logged_model(
            run.experiment_id, name="generator", source_run_id=run.run_id
        )
        run.client.log_model_artifacts(logged.model_id, str(files))
    run.client.finalize_logged_model(logged.model_id, "READY")
    run.client.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    if model not in models(run.client):
        run.client.create_registered_model(model)
    made = run.client.create_model_version(
        model,
        f"models:/{logged.model_id}",
        run.run_id,
        tags=dict(tags),
        description=card[:LONGEST_DESCRIPTION],
        model_id=logged.model_id,
    )
    return int(made.version)


def _save_model(files: Path, release: Path, card: str, settings: str) -> None:
    """Write what is registered: weights and description, code, signature, requirements."""
    import mlflow
    import numpy as np

    from gan_core.generator import ReleasedGenerator

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "generator"
        shutil.copytree(release, folder)
        (folder / MODEL_CARD_FILE).write_text(card, encoding="utf-8")
        (folder / SETTINGS_FILE).write_text(settings, encoding="utf-8")
        code = carried_package(Path(temporary))
        mlflow.pyfunc.save_model(
            files,
            loader_module=f"{code.name}.serving",
            data_path=str(folder),
            code_paths=[str(code)],
            signature=signature(ReleasedGenerator.load(release)),
            input_example=np.zeros(2, np.int64),
            pip_requirements=[f"{name}=={version(name)}" for name in SERVING_REQUIREMENTS],
        )
    for folder in files.rglob("__pycache__"):
        shutil.rmtree(folder)


def signature(generator: "ReleasedGenerator") -> Any:
    """Labels in, images out, with the parameters `seed` and `truncation`."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("int64"), (-1,))]),
        outputs=Schema([TensorSpec(np.dtype("uint8"), (-1, *generator.config.shape))]),
        params=ParamSchema(
            [
                ParamSpec("seed", DataType.long, 0),
                ParamSpec("truncation", DataType.double, 1.0),
            ]
        ),
    )


def carried_package(parent: Path) -> Path:
    """Copy what a generator needs of `gan_core` into a package named by its content.

    Two versions with different code can so be loaded into one process, also beside the project.
    """
    source = Path(gan_core.__file__).parent
    content = b"".join((source / name).read_bytes() for name in CARRIED_FILES)
    package = parent / f"released_generator_{hashlib.sha256(content).hexdigest()[:12]}"
    for name in CARRIED_FILES:
        target = package / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)
    return package


@contextlib.contextmanager
def changing(model: str) -> Iterator[None]:
    """Hold a model alone on this machine, so that comparing and moving an alias are one act."""
    folder = home.home() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / f"{model}.registration"):
        yield


def versions(client: "MlflowClient", model: str) -> list[RegisteredVersion]:
    """All versions of a model, newest first; none if there is no such model."""
    found = _named(client.search_model_versions, model)
    aliases = _aliases(client, model)
    return sorted(
        (_registered(item, aliases) for item in found), key=lambda v: v.version, reverse=True
    )


def find_version(
    client: "MlflowClient", model: str, weights_sha256: str
) -> RegisteredVersion | None:
    """The version with these weights, if they are registered already."""
    same = (v for v in versions(client, model) if v.tags.get(WEIGHTS_TAG) == weights_sha256)
    return next(same, None)


def get_version(client: "MlflowClient", model: str, number: int) -> RegisteredVersion:
    """A version by its number.

    Raises:
        FoundryError: There is none.
    """
    found = {version.version: version for version in versions(client, model)}
    if number not in found:
        known = ", ".join(map(str, sorted(found))) or "none"
        raise FoundryError(f"{model} has no version {number}; it has {known}.")
    return found[number]


def version_of(client: "MlflowClient", model: str, alias: str) -> RegisteredVersion:
    """The version that has an alias.

    Raises:
        FoundryError: None has it.
    """
    found = versions(client, model)
    for candidate in found:
        if alias in candidate.aliases:
            return candidate
    known = sorted({alias for candidate in found for alias in candidate.aliases})
    raise FoundryError(
        f"{model} has no version with the alias {alias!r}; its aliases are "
        f"{', '.join(known) or 'none'}, and `gan-foundry models {model}` lists its versions."
    )


def no_such_model(model: str, known: list[str]) -> FoundryError:
    """What to raise for a name that is not registered."""
    return FoundryError(
        f"there is no registered model {model!r}; registered are {', '.join(known) or 'none yet'}, "
        "and `gan-foundry run NAME` registers one."
    )


def models(client: "MlflowClient") -> list[str]:
    """Names of all registered models."""
    return sorted(model.name for model in _pages(client.search_registered_models))


def _pages(search: Callable[..., Any], query: str | None = None) -> Iterator[Any]:
    """All that a search finds, page after page."""
    token = None
    while True:
        page = search(query, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _named(search: Callable[..., Any], model: str) -> Iterator[Any]:
    """What a search finds under a name, which other programs may have given."""
    query = None if "'" in model else f"name = '{model}'"  # MLflow has no escape for quotes
    return (item for item in _pages(search, query) if item.name == model)


def _aliases(client: "MlflowClient", model: str) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for found in _named(client.search_registered_models, model):
        for alias, number in found.aliases.items():
            names.setdefault(int(number), []).append(alias)
    return names


def _registered(item: "ModelVersion", aliases: Mapping[int, list[str]]) -> RegisteredVersion:
    number = int(item.version)
    return RegisteredVersion(
        item.name,
        number,
        tuple(sorted(aliases.get(number, []))),
        item.run_id,
        item.source,
        item.creation_timestamp,
        dict(item.tags),
    )


def registry_page(model: str, number: int) -> str:
    """A version's page in MLflow's user interface."""
    return f"{tracking.run_page_base()}/#/models/{model}/versions/{number}"
