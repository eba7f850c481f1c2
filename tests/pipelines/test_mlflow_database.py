"""MLflow's database of a home, and of a home that was moved or copied."""

import shutil
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from gan_core.errors import FoundryError
from gan_core.generator import load_generator
from pipelines import registry, tracking
from pipelines.tracking import open_run
from tests.pipelines.models import CARD, SETTINGS, release_generator


@pytest.fixture
def filled_home(mlflow_home: Path, tmp_path: Path) -> Path:
    """A home with a run that has a file, and a registered generator."""
    run = open_run("tiny", SETTINGS, "key1", {})
    run.log_files([release_generator(tmp_path / "release") / "config.json"], "samples")
    registry.register_generator("tiny", tmp_path / "release", run, CARD, "{}", {})
    return mlflow_home


def connect_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A client as a new process has it that finds its home there."""
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tracking.connect()


def files_of(client: MlflowClient) -> list[str]:
    """Where MLflow keeps the files of experiments, runs, models and versions."""
    experiments = client.search_experiments()
    ids = [experiment.experiment_id for experiment in experiments]
    return [
        *(experiment.artifact_location for experiment in experiments),
        *(run.info.artifact_uri for run in client.search_runs(ids)),
        *(model.artifact_location for model in client.search_logged_models(ids)),
        client.get_model_version_download_uri("tiny", "1"),
    ]


def test_a_home_that_was_moved_has_its_files_and_writes_there(
    filled_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_generator("models:/tiny/1").sample(4, seed=7)
    # Names that a pattern or an address would read otherwise.
    moved = filled_home.rename(tmp_path / "a new_home of 5")
    client = connect_in(moved, monkeypatch)
    assert len(files_of(client)) == 5
    assert all(uri.startswith(moved.as_uri() + "/") for uri in files_of(client))
    assert (load_generator("models:/tiny/1").sample(4, seed=7) == expected).all()
    found = open_run("tiny", SETTINGS, "key1", {})
    files = client.list_artifacts(found.run_id, "samples")
    assert [file.path for file in files] == ["samples/config.json"]
    fresh = open_run("tiny", SETTINGS, "key2", {})
    fresh.log_files([tmp_path / "release" / "config.json"], "later")
    assert len(list(moved.rglob("later/config.json"))) == 1
    assert not filled_home.exists()


def test_a_copy_of_a_home_leaves_the_original_alone(
    filled_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(filled_home, tmp_path / "copy"))
    assert all(
        uri.startswith(copy.as_uri() + "/") for uri in files_of(connect_in(copy, monkeypatch))
    )
    original = files_of(connect_in(filled_home, monkeypatch))
    assert all(uri.startswith(filled_home.as_uri() + "/") for uri in original)


def test_files_that_somebody_keeps_elsewhere_stay_there_when_a_home_is_moved(
    filled_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tracking.connect()
    places = ["s3://bucket/theirs", f"{filled_home.as_uri()}2/mlflow/artifacts/theirs"]
    names = [client.create_experiment(f"{index}", place) for index, place in enumerate(places)]
    client = connect_in(filled_home.rename(tmp_path / "moved"), monkeypatch)
    assert [client.get_experiment(name).artifact_location for name in names] == places


def test_files_of_a_database_elsewhere_lie_in_the_home(
    own_home: Path, migrated_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copyfile(migrated_database, tmp_path / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    monkeypatch.chdir(tmp_path)
    run = open_run("tiny", SETTINGS, "key1", {})
    run.log_files([release_generator(tmp_path / "release") / "config.json"], "samples")
    (file,) = tmp_path.rglob("samples/config.json")
    assert file.is_relative_to(own_home / "mlflow" / "artifacts" / "tiny")


def test_what_another_database_says_of_its_files_stays_as_it_is(
    filled_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(tracking.connect())
    uri = f"sqlite:///{filled_home}/mlflow/mlflow.db"
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "another"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert files_of(tracking.connect()) == before


def test_a_database_that_is_none_is_one_sentence(mlflow_home: Path) -> None:
    database = mlflow_home / "mlflow" / "mlflow.db"
    database.write_text("not a database, but long enough to be read")
    with pytest.raises(FoundryError, match=r"cannot be used .*; if it is damaged, bring a copy"):
        tracking.connect()


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql+nodriver://host/mlflow",
        "sqlite:////proc/none/mlflow.db",
        "sqlite:////proc/mlflow.db",
    ],
)
def test_a_database_that_cannot_be_opened_is_one_sentence_at_once(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    start = time.monotonic()
    with pytest.raises(FoundryError, match=r"cannot be used .*; correct MLFLOW_TRACKING_URI"):
        tracking.connect()
    assert time.monotonic() - start < 20
