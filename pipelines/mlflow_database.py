"""MLflow's database in the home: made by one process at a time, and right after the home moved."""

from typing import TYPE_CHECKING

import filelock

from gan_core.errors import FoundryError
from pipelines import home

if TYPE_CHECKING:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore


def prepare(uri: str) -> None:
    """Make MLflow's database; two processes that open a fresh one at once would both fail.

    Raises:
        FoundryError: It is of another version of MLflow.
    """
    home.mlflow_folder().mkdir(parents=True, exist_ok=True)
    root = home.artifacts_folder().as_uri()
    with filelock.FileLock(home.mlflow_folder() / "prepare.lock"):
        from mlflow.exceptions import MlflowException
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        try:
            store = SqlAlchemyStore(uri, root)
        except MlflowException as error:
            raise FoundryError(
                f"MLflow's database {uri} is not of this version of MLflow; run "
                f"`mlflow db upgrade {uri}`."
            ) from error
        _follow_home(store, root)


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
