"""Where things lie: the project, Dagster's home, the stages' store, MLflow's database."""

import os
import shutil
from pathlib import Path
from urllib.parse import unquote

from gan_core.errors import FoundryError

PROJECT = Path(__file__).resolve().parents[1]
DEFS_FOLDER = Path(__file__).resolve().parent / "defs"
WORKSPACE_FILE = PROJECT / "workspace.yaml"
INSTANCE_FILE = "dagster.yaml"
NO_PLACES = ("/", ":memory:", "file:")  # in an address of SQLite's: what names no relative file
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")  # that MLflow can write to


def home() -> Path:
    """Dagster's home: `DAGSTER_HOME`, else the project's own; everything written lies below it.

    Raises:
        FoundryError: It is no path, or would be another one in the address of a database.
    """
    configured = os.environ.get("DAGSTER_HOME")
    place = absolute_path(configured, "DAGSTER_HOME") if configured else PROJECT / "dagster_home"
    # Dagster and MLflow write the path into addresses as it is, and SQLAlchemy decodes it.
    if "?" in str(place) or unquote(str(place)) != str(place):
        raise FoundryError(
            f"DAGSTER_HOME {place} has a ? or %xx in its path, which the addresses of databases "
            "cannot hold; set it to a folder without."
        )
    return place


def absolute_path(written: str, name: str, folder: Path = Path()) -> Path:
    """A path as a person wrote it: `~` is a home, and what is relative lies below `folder`.

    Args:
        written: The path.
        name: Of what holds it, for the error.
        folder: By default the working folder.

    Raises:
        FoundryError: It cannot be a path: an unknown user's home, a NUL, links in a circle.
    """
    try:
        return (folder / Path(written).expanduser()).resolve()
    except (RuntimeError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise FoundryError(
            f"{name} is {written!r}, which is no path ({reason}); correct it."
        ) from None


def require_checkout() -> None:
    """Raise FoundryError where the package was installed without the project around it."""
    if not WORKSPACE_FILE.exists():
        raise FoundryError(
            f"pipelines run from a checkout of the project, but {PROJECT} is none; clone the "
            "project and call `make install` there."
        )


def prepare_home() -> Path:
    """Make the home, with the project's instance settings, and the one that Dagster uses.

    Raises:
        FoundryError: It cannot be written.
    """
    place = home()
    own = PROJECT / "dagster_home" / INSTANCE_FILE
    try:
        place.mkdir(parents=True, exist_ok=True)
        if not (place / INSTANCE_FILE).exists() and own.exists():
            _copy_whole(own, place / INSTANCE_FILE)
    except OSError as error:
        raise FoundryError(
            f"DAGSTER_HOME {place} cannot be written ({error.strerror}); set it to a folder that "
            "can."
        ) from error
    os.environ["DAGSTER_HOME"] = str(place)
    if "MLFLOW_TRACKING_URI" in os.environ:  # for processes that begin elsewhere
        os.environ["MLFLOW_TRACKING_URI"] = tracking_uri()
    return place


def _copy_whole(source: Path, target: Path) -> None:
    """Copy a file, which nobody ever sees in part; two processes may do so at once."""
    own = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, own)
        own.replace(target)
    finally:
        own.unlink(missing_ok=True)


def store_folder() -> Path:
    """Root of the stages' folders."""
    return home() / "store"


def reproduction_folder(model: str, version: int) -> Path:
    """Where a version is trained again; it is there while that goes on, or was interrupted."""
    return home() / "reproductions" / f"{model}-{version}"


def mlflow_folder() -> Path:
    """MLflow's database and artifacts, unless `MLFLOW_TRACKING_URI` points elsewhere."""
    return home() / "mlflow"


def artifacts_folder() -> Path:
    """The files of MLflow's runs and models."""
    return mlflow_folder() / "artifacts"


def local_database() -> Path:
    """MLflow's SQLite file."""
    return mlflow_folder() / "mlflow.db"


def local_tracking_uri() -> str:
    """MLflow's SQLite database at an absolute path."""
    return f"sqlite:///{local_database()}"


def tracking_uri() -> str:
    """MLflow's tracking server or database; a file of SQLite's at an absolute path."""
    configured = os.environ.get("MLFLOW_TRACKING_URI") or local_tracking_uri()
    kind, found, file = configured.partition(":///")
    if found and file and kind.partition("+")[0] == "sqlite" and not file.startswith(NO_PLACES):
        return f"{kind}:///{Path.cwd() / file}"
    return configured


def tracks_in_database() -> bool:
    """Whether MLflow is a database that is written to without a server."""
    return tracking_uri().partition(":")[0].partition("+")[0] in DATABASES
