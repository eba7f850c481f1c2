"""MLflow's databases: that they can be used, and that the home's own is right after it moved."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import filelock

from gan_core.disk import is_disk_full
from gan_core.errors import FoundryError, first_line
from pipelines import home
from pipelines.store import describe_full_disk

if TYPE_CHECKING:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore


def prepare(uri: str) -> None:
    """Make MLflow's database; two processes that open a fresh one at once would both fail.

    Raises:
        FoundryError: It cannot be used, or is of another version of MLflow.
    """
    home.mlflow_folder().mkdir(parents=True, exist_ok=True)
    root = home.artifacts_folder().as_uri()
    with filelock.FileLock(home.mlflow_folder() / "prepare.lock"), database_errors(uri):
        from mlflow.exceptions import MlflowException
        from mlflow.store.db.utils import _make_parent_dirs_if_sqlite
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        _make_parent_dirs_if_sqlite(uri)
        schema_revision(uri)  # MLflow would ask one that is down for two minutes
        try:
            store = SqlAlchemyStore(uri, root)
        except MlflowException as error:
            raise FoundryError(
                f"MLflow's database {uri} is not of this version of MLflow; run "
                f"`mlflow db upgrade {uri}`."
            ) from error
        if uri == home.local_tracking_uri():
            _follow_home(store, root)


def schema_revision(uri: str) -> str | None:
    """The revision of a database's schema; None where there are no tables yet.

    Raises:
        FoundryError: The database cannot be used.
    """
    import sqlalchemy as sa
    from mlflow.store.db.utils import _get_schema_version

    with database_errors(uri):
        engine = sa.create_engine(uri)
        try:
            return _get_schema_version(engine)
        finally:
            engine.dispose()


@contextlib.contextmanager
def database_errors(uri: str) -> Iterator[None]:
    """Turn what a database, its driver or its address raises into one sentence.

    Raises:
        FoundryError: The database cannot be used, or a disk is full.
    """
    import sqlalchemy as sa

    try:
        yield
    # A driver that is not installed, or an address that is none.
    except (sa.exc.SQLAlchemyError, OSError, ImportError, ValueError) as error:
        if is_disk_full(error):
            raise FoundryError(describe_full_disk(home.home())) from error
        reason = first_line(error)
        remedy = (
            "if it is damaged, bring a copy of it back, or move it away to begin with an empty one"
            if uri == home.local_tracking_uri()
            else "correct MLFLOW_TRACKING_URI, start the database or install its driver"
        )
        raise FoundryError(
            f"MLflow's database {uri} cannot be used ({reason}); {remedy}."
        ) from error


def _follow_home(store: "SqlAlchemyStore", root: str) -> None:
    """Let addresses of files lead below `root`, if the home was moved or copied since they were
    written.

    MLflow keeps them whole. Where the home was then is read off the default experiment's, which
    the database was made with.
    """
    import sqlalchemy as sa
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
    from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlLoggedModel, SqlRun

    default = store.DEFAULT_EXPERIMENT_ID
    with store.engine.begin() as connection:
        located = sa.select(SqlExperiment.artifact_location)
        found = connection.scalar(located.where(SqlExperiment.experiment_id == int(default)))
        before = str(found).removesuffix(f"/{default}")
        if before == root or not before.startswith("file:"):
            return
        for column in (
            SqlExperiment.artifact_location,
            SqlRun.artifact_uri,
            SqlLoggedModel.artifact_location,
            SqlModelVersion.source,
            SqlModelVersion.storage_location,
        ):
            below = sa.func.substr(column, 1, len(before) + 1) == f"{before}/"
            moved = sa.literal(root).concat(sa.func.substr(column, len(before) + 1))
            connection.execute(sa.update(column.class_).where(below).values({column: moved}))
