"""`gan-foundry doctor`: what is here, where it lies, and whether it can be used."""

import os
import shutil
import sys
from importlib.metadata import version
from typing import Any

import fsspec
import yaml

from gan_core.config import PipelineSettings
from gan_core.data.download import MIRROR_VARIABLE, mirror_base
from gan_core.errors import FoundryError, hide_passwords
from pipelines import home, mlflow_database, tracking
from pipelines.notification_channels import channel_states, open_channels

RUN_COORDINATOR = "pipelines.run_coordinator"
PACKAGES = ("dagster", "mlflow", "torch", "torchvision", "pandas", "numpy")


def examine() -> dict[str, Any]:
    """Examine this machine: `healthy` is False if `problems` says what would stop a run."""
    import torch

    problems: list[str] = []
    pipelines = _pipelines(problems)
    _examine_instance_settings(problems)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    store = home.store_folder()
    report: dict[str, Any] = {
        "gan_foundry": version("gan-foundry"),
        "python": sys.version.partition(" ")[0],
        **{name: version(name) for name in PACKAGES},
        "device": device,
        "processors": len(os.sched_getaffinity(0)),
        "dagster_home": str(home.home()),
        "store": str(store),
        "store_writable": _can_write(problems),
        "free_disk_gb": _free_disk_gb(),
        "dagster_database": _dagster_database_state(problems),
        "mlflow_tracking_uri": hide_passwords(home.tracking_uri()),
        "mlflow_database": _database_state(problems),
        "mirror": hide_passwords(os.environ.get(MIRROR_VARIABLE) or "none"),
        "mirror_reachable": _mirror_reachable(problems),
        "pipelines": list(pipelines),
        "notifications": {
            name: channel_states(settings.notifications)
            for name, settings in pipelines.items()
            if settings is not None and open_channels(settings.notifications)
        },
    }
    told = [hide_passwords(problem) for problem in problems]
    return {**report, "problems": told, "healthy": not problems}


def _free_disk_gb() -> float:
    """Free space where the home is, or would be made."""
    place = home.home()
    while not place.is_dir():
        place = place.parent
    return round(shutil.disk_usage(place).free / 1e9, 1)


def _can_write(problems: list[str]) -> bool:
    store = home.store_folder()
    probe = store / f".doctor-{os.getpid()}"
    try:
        store.mkdir(parents=True, exist_ok=True)
        probe.write_text("", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        problems.append(f"the store {store} cannot be written: {error.strerror}")
        return False
    return True


def _dagster_database_state(problems: list[str]) -> str:
    """`current`, `not made yet`, `outdated` or `unreadable`."""
    if not (home.home() / "history").exists():
        return "not made yet"
    import dagster as dg

    from pipelines.instance import instance_errors

    home.prepare_home()
    try:
        with instance_errors(), dg.DagsterInstance.get() as instance:
            revision = instance.run_storage.alembic_version()
    except FoundryError as error:
        problems.append(str(error))
        return "unreadable"
    if revision is not None and revision[0] != revision[1]:
        problems.append(
            f"Dagster's database in {home.home()} has schema {revision[0]}, not {revision[1]}; run "
            "`dagster instance migrate`"
        )
        return "outdated"
    return "current"


def _examine_instance_settings(problems: list[str]) -> None:
    """DAGSTER_HOME is Dagster's own variable: it may lead to the home of another project."""
    file = home.home() / home.INSTANCE_FILE
    if not file.exists():
        return  # it will be made
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        ours = content["run_coordinator"]["module"] == RUN_COORDINATOR
    except (OSError, ValueError, TypeError, LookupError, yaml.YAMLError):
        ours = False
    if not ours:
        problems.append(
            f"{file} is not this project's: its run_coordinator is not {RUN_COORDINATOR}, so runs "
            "have neither their pipeline's retries nor its longest time; copy "
            f"{home.PROJECT / 'dagster_home' / home.INSTANCE_FILE} there, or set DAGSTER_HOME to "
            "another folder"
        )


def _database_state(problems: list[str]) -> str:
    """`current`, `not made yet`, `outdated`, or `server` for a tracking server."""
    uri = home.tracking_uri()
    if "://" not in uri or uri.startswith(("http://", "https://")):
        return _server_state(uri, problems)
    if uri == home.local_tracking_uri() and not home.local_database().exists():
        return "not made yet"
    from mlflow.store.db.utils import _get_latest_schema_revision

    try:
        found, wanted = mlflow_database.schema_revision(uri), _get_latest_schema_revision()
    except FoundryError as error:
        problems.append(str(error))
        return "unreadable"
    if found is None:
        return "not made yet"
    if found != wanted:
        problems.append(
            f"MLflow's database {uri} has schema {found}, not {wanted}; run "
            f"`mlflow db upgrade {uri}`"
        )
        return "outdated"
    return "current"


def _server_state(uri: str, problems: list[str]) -> str:
    if problem := tracking.server_problem(uri):
        problems.append(f"the MLflow server {uri} does not answer: {problem}")
        return "server, not reachable"
    return "server, reachable"


def _mirror_reachable(problems: list[str]) -> bool | None:
    """Whether the mirror's base can be listed or asked; None without a mirror."""
    try:
        base = mirror_base()
        if base is None:
            return None
        if base.startswith(("http://", "https://")):
            import requests

            answer = requests.head(base, timeout=5)
            if answer.status_code < requests.codes.server_error:
                return True  # a base need not be a page of its own
            problems.append(f"the mirror {base} answered {answer.status_code}")
            return False
        if _exists(base):
            return True
        problems.append(f"the mirror {base} does not exist; correct {MIRROR_VARIABLE}")
    except FoundryError as error:
        problems.append(str(error))
    except (OSError, ImportError, ValueError) as error:
        problems.append(f"the mirror {os.environ[MIRROR_VARIABLE]} cannot be reached: {error}")
    return False


def _exists(address: str) -> bool:
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
        return bool(filesystem.exists(path))
    except (OSError, ImportError, ValueError):
        raise
    except Exception as error:  # each remote file system raises kinds of its own
        raise OSError(f"{type(error).__name__}: {error}") from error


def _pipelines(problems: list[str]) -> dict[str, PipelineSettings | None]:
    """The settings of each pipeline by its name; None where its file has a mistake.

    What only Dagster knows to be one is told too, and images of one's own that are not there.
    """
    from pipelines.components.gan_pipeline import build_pipeline
    from pipelines.pipeline_files import pipeline_files, read_pipeline_file
    from pipelines.run import check_images

    found: dict[str, PipelineSettings | None] = {}
    for name, file in pipeline_files().items():
        found[name] = None
        try:
            found[name] = settings = read_pipeline_file(file)
            build_pipeline(name, settings)
            check_images(settings.data)
        except FoundryError as error:
            told = str(error)
            problems.append(told if name in told else f"{name}: {told}")
    return found
