"""What the pipelines' tests share: homes with an MLflow database, and a dead server."""

import functools
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import blessing, tracking
from pipelines.assets import generator
from tests.gan_core.trainings import train_here
from tests.pipelines.tiny_pipeline import place_database


@pytest.fixture(autouse=True)
def no_address_stays_behind(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's client writes its address into the environment; each test's goes with the test."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


REAL_BLESSING = blessing.bless


@pytest.fixture(scope="session", autouse=True)
def quick_blessing() -> Iterator[None]:
    """Without its fresh process, which takes seconds; test_blessing and the e2e tests start it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blessing, "bless", lambda *_: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_training() -> Iterator[None]:
    """Without its process, which takes seconds; test_launch and the e2e tests start it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "run_job", train_here)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_schema_checks() -> Iterator[None]:
    """MLflow reads its 68 migrations each time a store is opened, to know the last of them."""
    from mlflow.store.db import utils

    with pytest.MonkeyPatch.context() as patch:
        newest = functools.cache(utils._get_latest_schema_revision)
        patch.setattr(utils, "_get_latest_schema_revision", newest)
        yield


@pytest.fixture
def real_blessing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blessing as it is."""
    monkeypatch.setattr(blessing, "bless", REAL_BLESSING)


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: to make one takes seconds, to copy it none."""
    home = tmp_path_factory.mktemp("migrated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        patch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow sets it; this takes it back
        tracking.connect()
    return home / "mlflow" / "mlflow.db"


@pytest.fixture
def mlflow_home(own_home: Path, migrated_database: Path) -> Path:
    """The test's home, with an empty MLflow database in it."""
    place_database(migrated_database, own_home)
    return own_home


@pytest.fixture
def dead_server() -> str:
    """An address of this machine at which nothing answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
