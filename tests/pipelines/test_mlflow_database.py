"""MLflow's database of a home, and of a home that was moved or copied."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

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
