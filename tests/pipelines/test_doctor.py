"""What `doctor` finds out about a machine."""

import sqlite3
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import s3fs

from gan_core.errors import FoundryError
from pipelines import home
from pipelines.doctor import examine
from pipelines.home import prepare_home
from pipelines.instance import make_databases
from pipelines.pipeline_files import COMPONENT_TYPE, pipeline_files


@pytest.fixture(autouse=True)
def prepared(own_home: Path) -> None:
    """As the command line leaves the home."""
    prepare_home()


def only_problem(report: dict[str, Any]) -> str:
    assert not report["healthy"]
    (problem,) = report["problems"]
    return str(problem)


def test_a_fresh_machine_is_healthy(own_home: Path) -> None:
    report = examine()
    assert report["problems"] == []
    assert report["healthy"] is True
    assert report["store_writable"] is True
    assert report["mlflow_database"] == "not made yet"
    assert report["mirror_reachable"] is None
    assert report["pipelines"] == list(pipeline_files())


def test_what_is_used_and_where_things_lie_is_told(own_home: Path) -> None:
    report = examine()
    assert report["dagster_home"] == str(own_home)
    assert report["store"] == str(own_home / "store")
    assert report["mlflow_tracking_uri"] == f"sqlite:///{own_home}/mlflow/mlflow.db"
    assert {"torch", "dagster", "mlflow", "device", "free_disk_gb"} <= set(report)


def test_examining_leaves_no_file_in_the_store(own_home: Path) -> None:
    examine()
    assert list((own_home / "store").iterdir()) == []


def test_a_store_that_cannot_be_written_is_a_problem(own_home: Path) -> None:
    (own_home / "store").write_text("a file in its place")
    report = examine()
    assert report["store_writable"] is False
    assert only_problem(report).startswith(f"the store {own_home}/store cannot be written: ")


def test_a_home_that_cannot_be_made_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "file" / "home"))
    report = examine()
    assert report["store_writable"] is False
    assert str(tmp_path / "file" / "home") in only_problem(report)


def test_a_current_database_is_told(own_home: Path, migrated_database: Path) -> None:
    (own_home / "mlflow").mkdir()
    (own_home / "mlflow" / "mlflow.db").write_bytes(migrated_database.read_bytes())
    report = examine()
    assert report["mlflow_database"] == "current"
    assert report["healthy"]


def test_an_outdated_database_is_a_problem_with_its_remedy(
    own_home: Path, migrated_database: Path
) -> None:
    (own_home / "mlflow").mkdir()
    database = own_home / "mlflow" / "mlflow.db"
    database.write_bytes(migrated_database.read_bytes())
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    connection.close()
    report = examine()
    assert report["mlflow_database"] == "outdated"
    problem = only_problem(report)
    assert "451aebb31d03" in problem
    assert f"mlflow db upgrade {home.local_tracking_uri()}" in problem


def test_a_file_that_is_no_database_is_a_problem(own_home: Path) -> None:
    (own_home / "mlflow").mkdir()
    (own_home / "mlflow" / "mlflow.db").write_text("not a database, but long enough to be read")
    report = examine()
    assert report["mlflow_database"] == "unreadable"
    problem = only_problem(report)
    assert "cannot be used ((sqlite3.DatabaseError) file is not a database); if" in problem


def test_a_database_without_its_driver_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+nodriver://host/mlflow")
    report = examine()
    assert report["mlflow_database"] == "unreadable"
    assert "install its driver" in only_problem(report)


def test_passwords_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:9")
    monkeypatch.setenv("GAN_FOUNDRY_MIRROR", "http://ben:secret@127.0.0.1:9")
    report = examine()
    assert report["mlflow_tracking_uri"] == "http://ann:***@127.0.0.1:9"
    assert len(report["problems"]) == 2
    assert "secret" not in str(report)


def test_an_empty_database_is_one_that_is_not_made_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/empty.db")
    report = examine()
    assert (report["mlflow_database"], report["problems"]) == ("not made yet", [])


def test_a_tracking_server_that_is_down_is_a_problem(
    dead_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead_server)
    report = examine()
    assert report["mlflow_database"] == "server, not reachable"
    assert only_problem(report).startswith(f"the MLflow server {dead_server} does not answer")


def test_a_mirror_that_is_there_is_reachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAN_FOUNDRY_MIRROR", tmp_path.as_uri())
    report = examine()
    assert report["mirror_reachable"] is True
    assert report["mirror"] == tmp_path.as_uri()


@pytest.mark.parametrize("kind", ["folder", "server"])
def test_a_mirror_that_is_not_there_is_a_problem(
    kind: str, tmp_path: Path, dead_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = (tmp_path / "gone").as_uri() if kind == "folder" else dead_server
    monkeypatch.setenv("GAN_FOUNDRY_MIRROR", address)
    report = examine()
    assert report["mirror_reachable"] is False
    assert f"the mirror {address}" in only_problem(report)


def test_a_mirror_in_an_object_store_without_credentials_is_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s3fs.S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("GAN_FOUNDRY_MIRROR", "s3://bucket/mirror")
    assert "s3://bucket/mirror cannot be reached: NoCredentialsError" in only_problem(examine())


def test_a_mistake_in_a_pipelines_file_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "defs.yaml").write_text("type: x\n")
    monkeypatch.setattr("pipelines.pipeline_files.DEFS_FOLDER", tmp_path)
    report = examine()
    assert report["pipelines"] == ["faces"]
    assert "type is 'x'" in only_problem(report)


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        (
            "  data: {source: digits, resolution: 16}\n  schedule: {cron: every monday}",
            "faces/defs.yaml: schedule.cron is 'every monday'",
        ),
        (
            "  data: {source: image_folder, path: /nowhere, resolution: 16}",
            "faces: data.path /nowhere does not exist",
        ),
    ],
)
def test_what_would_stop_a_pipelines_run_is_a_problem(
    attributes: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faces").mkdir()
    text = f"type: {COMPONENT_TYPE}\nattributes:\n{attributes}\n"
    (tmp_path / "faces" / "defs.yaml").write_text(text)
    monkeypatch.setattr("pipelines.pipeline_files.DEFS_FOLDER", tmp_path)
    assert told in only_problem(examine())


def test_a_damaged_dagster_database_is_one_sentence_also_of_a_run(own_home: Path) -> None:
    dg.DagsterInstance.get().dispose()
    (own_home / "history" / "runs.db").write_bytes(b"no database" * 100)
    problem = only_problem(examine())
    assert problem.startswith(f"Dagster cannot use DAGSTER_HOME {own_home} (")
    assert "bring a copy of its databases back" in problem
    with pytest.raises(FoundryError, match="file is not a database"):
        make_databases()


def test_instance_settings_that_dagster_cannot_load_are_one_sentence(own_home: Path) -> None:
    (own_home / "dagster.yaml").write_text("storage: {postgres: {postgres_url: x}}\n")
    with pytest.raises(FoundryError, match=r"correct its dagster\.yaml"):
        make_databases()


def test_instance_settings_of_another_project_are_a_problem(own_home: Path) -> None:
    settings = own_home / "dagster.yaml"
    settings.write_text("telemetry: {enabled: false}\n")
    problem = only_problem(examine())
    assert problem.startswith(f"{settings} is not this project's: its run_coordinator is not")
    settings.write_text("- of\n- something else\n")
    assert any("its run_coordinator is not" in told for told in examine()["problems"])


def test_an_outdated_dagster_database_is_a_problem_with_its_remedy(own_home: Path) -> None:
    dg.DagsterInstance.get().dispose()
    assert examine()["dagster_database"] == "current"
    with sqlite3.connect(own_home / "history" / "runs.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '000000000000'")
    report = examine()
    assert report["dagster_database"] == "outdated"
    assert any("dagster instance migrate" in problem for problem in report["problems"])
