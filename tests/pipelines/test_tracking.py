"""MLflow's side of a training."""

import errno
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from gan_core.config import PipelineSettings, flat_settings
from gan_core.errors import FoundryError
from gan_core.training.journal import Journal, read_journal
from pipelines import tracking
from pipelines.tracking import SHIPPED_TAG, TrackedRun, open_run

SETTINGS = PipelineSettings.model_validate({"data": {"source": "digits", "resolution": 16}})
START = 1_700_000_000.0  # seconds since 1970; long ago, so that no clock of the test gives it


@pytest.fixture
def run(mlflow_home: Path) -> TrackedRun:
    return open_run("digits", SETTINGS, "key1", {"data_sha256": "abc", "absent": None})


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A training folder whose journal has 4 progress rows and 2 grids."""
    folder = tmp_path / "training"
    (folder / "grids").mkdir(parents=True)
    with Journal(folder / "journal.jsonl", 0) as journal:
        journal.write("start", time=START, device="test")
        for step in range(4):
            journal.write(
                "progress",
                time=START + step,
                images=100 * step,
                kimg=step / 10,
                generator_loss=1.5 * step,
            )
            if step % 2:
                file = f"grids/{step}.png"
                PIL.Image.new("L", (8, 8), step).save(folder / file)
                journal.write("grid", time=START + step, images=100 * step, file=file)
    return folder


def ship(run: TrackedRun, training: Path, durable_bytes: int | None = None) -> None:
    journal = training / "journal.jsonl"
    run.ship_journal(
        training, journal, journal.stat().st_size if durable_bytes is None else durable_bytes
    )


def losses(run: TrackedRun) -> list[tuple[int, float, int]]:
    """Step, value and time of each row that MLflow has."""
    history = run.client.get_metric_history(run.run_id, "training/generator_loss")
    return [(row.step, row.value, row.timestamp) for row in history]


def grid_images(run: TrackedRun) -> list[str]:
    names = [item.path for item in run.client.list_artifacts(run.run_id, "images")]
    return sorted(name for name in names if name.endswith(".png"))


def test_a_run_is_found_again_by_its_key(run: TrackedRun) -> None:
    assert open_run("digits", SETTINGS, "key1", {}).run_id == run.run_id
    assert open_run("digits", SETTINGS, "key2", {}).run_id != run.run_id
    assert open_run("mnist", SETTINGS, "key1", {}).run_id != run.run_id


def test_all_settings_but_whom_to_tell_are_parameters(run: TrackedRun) -> None:
    expected = {
        key: str(value)
        for key, value in flat_settings(SETTINGS).items()
        if not key.startswith("notifications.") and key != "operation.owners"
    }
    assert run.client.get_run(run.run_id).data.params == expected


def test_data_and_environment_are_tags(run: TrackedRun) -> None:
    tags = run.client.get_run(run.run_id).data.tags
    assert tags["data_sha256"] == "abc"
    assert "absent" not in tags
    assert tags["environment.python"].startswith("3.")
    assert {"environment.torch", "environment.mlflow", "environment.platform"} <= set(tags)


def test_a_finished_run_says_so(run: TrackedRun) -> None:
    assert run.client.get_run(run.run_id).info.status == "RUNNING"
    run.end("FINISHED")
    assert run.client.get_run(run.run_id).info.status == "FINISHED"


def test_rows_keep_the_time_and_the_step_at_which_they_were_written(
    run: TrackedRun, training: Path
) -> None:
    ship(run, training)
    expected = [(100 * step, 1.5 * step, int(START + step) * 1000) for step in range(4)]
    assert losses(run) == expected


def test_a_journal_that_grows_is_shipped_piece_by_piece(run: TrackedRun, training: Path) -> None:
    whole = (training / "journal.jsonl").read_bytes()
    (training / "journal.jsonl").write_bytes(whole[: len(whole) // 2])
    ship(run, training)
    first = len(losses(run))
    (training / "journal.jsonl").write_bytes(whole)
    ship(run, training)
    assert 0 < first < 4
    assert len(losses(run)) == 4
    assert len(grid_images(run)) == 2


def test_only_rows_that_a_checkpoint_has_made_final_are_shipped(
    run: TrackedRun, training: Path
) -> None:
    ends = [
        end for end, row in read_journal(training / "journal.jsonl") if row["event"] == "progress"
    ]
    ship(run, training, durable_bytes=ends[1])
    assert [step for step, _, _ in losses(run)] == [0, 100]
    ship(run, training, durable_bytes=ends[1])
    assert len(losses(run)) == 2


def test_shipping_a_journal_twice_leaves_every_row_once(run: TrackedRun, training: Path) -> None:
    ship(run, training)
    once = losses(run)
    run.set_tags({SHIPPED_TAG: 0})  # as if the first shipment had broken off at its end
    ship(run, training)
    assert losses(run) == once


def test_shipping_a_journal_twice_leaves_every_grid_once(run: TrackedRun, training: Path) -> None:
    ship(run, training)
    run.set_tags({SHIPPED_TAG: 0})
    ship(run, training)
    assert len(grid_images(run)) == 2


def test_of_two_grids_of_a_step_mlflow_has_the_first(run: TrackedRun, training: Path) -> None:
    with Journal(
        training / "journal.jsonl", (training / "journal.jsonl").stat().st_size
    ) as journal:
        PIL.Image.new("L", (8, 8), 9).save(training / "grids" / "released.png")
        journal.write("grid", time=START + 4, images=300, file="grids/released.png")
    ship(run, training)
    assert len(grid_images(run)) == 2


def test_settings_that_were_cut_off_are_recorded_when_the_run_is_opened_again(
    run: TrackedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run.client.get_run(run.run_id).data.params
    assert len(whole) > 100
    client = type(run.client)
    sent = client.log_batch

    def cut_off(self: Any, run_id: str, *, params: Any = (), **more: Any) -> None:
        sent(self, run_id, params=params[:100], **more)
        if params:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(client, "log_batch", cut_off)
        open_run("digits", SETTINGS, "key2", {})
    again = open_run("digits", SETTINGS, "key2", {})
    assert again.client.get_run(again.run_id).data.params == whole


def test_an_experiment_that_was_deleted_is_told_with_the_way_back(run: TrackedRun) -> None:
    run.client.delete_experiment(run.experiment_id)
    told = rf"the experiment digits was deleted .* restore --experiment-id {run.experiment_id}`"
    with pytest.raises(FoundryError, match=told):
        open_run("digits", SETTINGS, "key1", {})


def test_mlflows_telemetry_is_off_whoever_imports_it_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "")  # recorded, so that it is taken back
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
    program = (
        "import os\nfrom pipelines.tracking import tracking_errors\n"
        "with tracking_errors():\n    print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "true\n"


def test_grids_are_images_by_step(run: TrackedRun, training: Path) -> None:
    ship(run, training)
    names = grid_images(run)
    assert ["+step+100+" in names[0], "+step+300+" in names[1]] == [True, True]
    assert all(f"+timestamp+{int(START) // 10}" in name for name in names)
    stored = Path(run.client.download_artifacts(run.run_id, names[0])).read_bytes()
    assert PIL.Image.open(io.BytesIO(stored)).size == (8, 8)


def test_more_rows_than_one_request_takes_are_all_shipped(run: TrackedRun, tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl", 0) as journal:
        for step in range(1200):
            journal.write("progress", time=START + step, images=step, generator_loss=0.0)
    ship(run, tmp_path)
    history = run.client.get_metric_history(run.run_id, "training/generator_loss")
    assert len(history) == 1200


def test_a_server_that_is_down_is_told_in_seconds(
    dead_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead_server)
    start = time.monotonic()
    with pytest.raises(FoundryError, match=rf"MLflow at {dead_server} cannot be used"):
        open_run("digits", SETTINGS, "key1", {})
    assert time.monotonic() - start < 20


def test_an_address_of_no_known_kind_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "carrier-pigeon://coop")
    with pytest.raises(FoundryError, match="carrier-pigeon://coop cannot be used"):
        open_run("digits", SETTINGS, "key1", {})


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql+nodriver://ann:secret@host/mlflow",
        "postgresql+nodriver://ann:a/secret@host/mlflow",
        "postgresql+nodriver://ann:p@secret@host/mlflow",
        "http://ann:secret@127.0.0.1:9",
    ],
)
def test_the_password_of_an_address_is_not_told(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(FoundryError) as caught:
        open_run("digits", SETTINGS, "key1", {})
    assert "://ann:***@" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_password_among_an_addresss_parameters_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = "postgresql+nodriver://host/mlflow?user=ann&Password=secret&x=1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(FoundryError, match=r"user=ann&Password=\*\*\*&x=1 cannot be used"):
        open_run("digits", SETTINGS, "key1", {})


def test_a_file_that_one_may_not_read_is_not_blamed_on_the_server() -> None:
    with pytest.raises(FoundryError) as caught, tracking.tracking_errors():
        raise PermissionError(errno.EACCES, "Permission denied", "/home/of/root")
    assert str(caught.value).startswith("/home/of/root cannot be read or written (Permission den")
    with (
        pytest.raises(FoundryError, match=r"cannot be used \(OSError\)"),
        tracking.tracking_errors(),
    ):
        raise OSError


def test_links_to_pages_hold_no_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:secret@mlflow.example.org:8443/base/")
    monkeypatch.setenv(tracking.DAGSTER_UI_VARIABLE, "https://ann:secret@dagster.example.org")
    assert tracking.run_page_base() == "https://mlflow.example.org:8443/base"
    assert tracking.dagster_run_url("id") == "https://dagster.example.org/runs/id"


def test_two_processes_can_make_the_database_at_once(own_home: Path) -> None:
    code = (
        "import json; from pipelines.tracking import open_run;"
        "from gan_core.config import PipelineSettings;"
        "settings = PipelineSettings.model_validate({'data': {'source': 'digits'}});"
        "import sys; run = open_run('digits', settings, sys.argv[1], {});"
        "print(json.dumps([run.run_id, run.experiment_id]))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, key], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for key in ("one", "two")
    ]
    outputs = [process.communicate() for process in processes]
    problems = [error.decode()[-2000:] for _, error in outputs]
    assert [process.returncode for process in processes] == [0, 0], problems
    found: list[Any] = [json.loads(out.decode().splitlines()[-1]) for out, _ in outputs]
    assert found[0][0] != found[1][0]
    assert found[0][1] == found[1][1]
