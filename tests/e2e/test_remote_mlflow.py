"""A tracking server elsewhere: everything is registered there, and fetched from there."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import mlflow
import pytest
import requests

from pipelines import tracking
from tests.conftest import PROJECT, subprocess_environment
from tests.e2e.conftest import run_command

pytestmark = pytest.mark.slow

MLFLOW = Path(sys.executable).with_name("mlflow")
SHORT = [
    *("--set", "training.kimg=2"),
    *("--set", "evaluation.checks.blocking=false"),
    *("--set", "training.threads=1"),
    *("--set", "feature_network.epochs=1"),
    *("--set", "network.generator_channels=[32, 16, 16]"),
]
LOADER = """
import sys
import numpy
from gan_core import load_generator
generator = load_generator("models:/digits@champion")
saved = numpy.load(sys.argv[1])
assert saved["images"].shape == (8, 16, 16, 1), saved["images"].shape
assert (generator.sample(8, seed=3, labels=saved["labels"]) == saved["images"]).all()
"""


@pytest.fixture
def server(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[str]:
    """Address of a live MLflow server with a database and artifacts of its own."""
    folder, port = tmp_path / "server", free_port()
    folder.mkdir()
    address, log = f"http://127.0.0.1:{port}", folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(MLFLOW, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
                *("--artifacts-destination", (folder / "artifacts").as_uri()),
            ],
            env=subprocess_environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_up(address, process, log)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_up(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        with suppress(requests.RequestException):
            if requests.get(f"{address}/health", timeout=5).ok:
                return
        time.sleep(0.3)


def test_a_run_registers_at_a_remote_server_is_sampled_from_there_and_collected_there(
    server: str, own_home: Path, tmp_path: Path
) -> None:
    result = run_command(own_home, "run", "digits", *SHORT, "--json", MLFLOW_TRACKING_URI=server)
    assert result.status == 0, result.stderr
    summary = result.json

    # Run, curves, images and version are at the server, and nothing of them at home.
    client = mlflow.MlflowClient(server)
    run = client.get_run(summary["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    assert run.data.params["training.kimg"] == "2.0"
    curve = client.get_metric_history(run.info.run_id, "training/generator_loss")
    assert [point.step for point in curve] == [1024, 1984]
    assert run.data.metrics["evaluation/frechet_distance"] == pytest.approx(
        summary["evaluation"]["frechet_distance"]
    )
    assert client.list_artifacts(run.info.run_id, "images")
    version = client.get_model_version_by_alias("digits", "champion")
    assert int(version.version) == summary["version"] == 1
    assert version.run_id == run.info.run_id
    assert not (own_home / "mlflow").exists()

    # The command line and a program of one's own fetch the same generator from there, and leave
    # no copy of it.
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    sampled = run_command(
        own_home,
        *("sample", "digits", "-n", "8", "--seed", "3", "--out", str(tmp_path / "samples")),
        "--json",
        MLFLOW_TRACKING_URI=server,
        TMPDIR=str(temporary),
    )
    assert sampled.status == 0, sampled.stderr
    loaded = subprocess.run(
        [sys.executable, "-c", LOADER, sampled.json["archive"]],
        env=subprocess_environment(MLFLOW_TRACKING_URI=server, TMPDIR=str(temporary)),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    assert not (own_home / "mlflow").exists()
    assert list(temporary.iterdir()) == []

    # What nothing needs any more is deleted there; its files are the server's.
    old = client.create_run(
        run.info.experiment_id, start_time=1, tags={tracking.KEY_TAG: "an older training"}
    ).info.run_id
    client.set_terminated(old)
    collected = run_command(own_home, "gc", "--keep", "1", "--json", MLFLOW_TRACKING_URI=server)
    assert collected.status == 0, collected.stderr
    (plan,) = (p for p in collected.json["pipelines"] if p["pipeline"] == "digits")
    assert (plan["mlflow_runs"], plan["versions"], plan["folders"]) == ([old], [], [])
    assert "`mlflow gc` there" in collected.json["left"]
    assert client.get_run(old).info.lifecycle_stage == "deleted"
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"
    assert client.get_model_version_by_alias("digits", "champion").version == version.version
    assert not (own_home / "mlflow").exists()
