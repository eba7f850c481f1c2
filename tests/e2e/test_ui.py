"""The servers: what they print, what can be started through them, and that they end clean."""

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.conftest import PROJECT, subprocess_environment
from tests.e2e.conftest import GAN_FOUNDRY, run_command
from tests.e2e.test_digits import STAGES

pytestmark = pytest.mark.slow

SHORT = {
    "training.kimg": 2,
    "evaluation.checks.blocking": False,
    "feature_network.epochs": 2,
    "training.threads": 2,
    "network.generator_channels": [32, 16, 16],
}

LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
STATUS = """
query Status($id: ID!) {
  runOrError(runId: $id) { ... on Run { status assets { key { path } } } }
}
"""


class RunningUi:
    """`gan-foundry ui` in a process of its own."""

    def __init__(self, home: Path, port: int, mlflow_port: int) -> None:
        self.output = home.parent / "ui.txt"
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [GAN_FOUNDRY, "ui", "--port", str(port), "--mlflow-port", str(mlflow_port)],
                env=subprocess_environment(DAGSTER_HOME=str(home)),
                cwd=PROJECT,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 180
        while "Ctrl-C" not in self.text():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.2)
        self.dagster, self.mlflow = re.findall(r"http://[0-9.:]+", self.text())[:2]

    def text(self) -> str:
        return self.output.read_text()

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = requests.post(
            f"{self.dagster}/graphql", json={"query": query, "variables": variables}, timeout=60
        )
        return answer.json()["data"]

    def stop(self, number: int) -> list[psutil.Process]:
        """Send a signal, wait for the end, and give back what is still alive."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        assert len(family) >= 3
        self.process.send_signal(number)
        assert self.process.wait(40) == 0, self.text()
        _, alive = psutil.wait_procs(family, timeout=5)
        return alive


@pytest.fixture
def ui(own_home: Path, free_port: Callable[[], int]) -> Iterator[RunningUi]:
    own_home.mkdir(parents=True)
    running = RunningUi(own_home, free_port(), free_port())
    yield running
    if running.process.poll() is None:
        running.stop(signal.SIGTERM)


def test_a_chain_launched_as_the_pages_do_it_ends_in_the_registry_and_sigterm_ends_all(
    ui: RunningUi, own_home: Path
) -> None:
    launched = ui.graphql(
        LAUNCH,
        params={
            "selector": {
                "repositoryLocationName": "gan_foundry",
                "repositoryName": "__repository__",
                "jobName": "__ASSET_JOB",
                "assetSelection": [{"path": ["digits", stage]} for stage in STAGES],
            },
            "runConfigData": {"resources": {"overrides": {"config": {"values": SHORT}}}},
            "mode": "default",
        },
    )["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]
    deadline = time.monotonic() + 300
    while (run := ui.graphql(STATUS, id=run_id)["runOrError"])["status"] not in (
        "SUCCESS",
        "FAILURE",
        "CANCELED",
    ):
        assert time.monotonic() < deadline, run
        time.sleep(1)

    assert run["status"] == "SUCCESS"
    assert sorted(asset["key"]["path"][1] for asset in run["assets"]) == sorted(STAGES)
    (version,) = run_command(own_home, "models", "digits", "--json").json["versions"]
    assert version["aliases"] == ["champion"]
    # MLflow's server shows the same store, and the run links to its own pages.
    answer = requests.get(
        f"{ui.mlflow}/api/2.0/mlflow/runs/get",
        params={"run_id": version["mlflow_run_id"]},
        timeout=30,
    ).json()
    tags = {tag["key"]: tag["value"] for tag in answer["run"]["data"]["tags"]}
    assert tags["dagster.run_url"] == f"{ui.dagster}/runs/{run_id}"
    # A run of the command line finds all of it done, and stands in the pages like the other.
    settings = [part for key, value in SHORT.items() for part in ("--set", f"{key}={value}")]
    again = run_command(own_home, "run", "digits", *settings, "--json")
    assert again.status == 0, again.stderr
    assert again.stderr.count("unchanged, reused") == len(STAGES)
    own = ui.graphql(STATUS, id=again.json["dagster_run_id"])["runOrError"]
    assert own["status"] == "SUCCESS"
    assert sorted(asset["key"]["path"][1] for asset in own["assets"]) == sorted(STAGES)
    assert ui.stop(signal.SIGTERM) == []


def test_ctrl_c_ends_all_servers(ui: RunningUi) -> None:
    for address in (f"{ui.dagster}/server_info", f"{ui.mlflow}/health"):
        assert requests.get(address, timeout=30).ok
        assert address.startswith("http://127.0.0.1:")
    assert ui.stop(signal.SIGINT) == []


def test_a_port_in_use_is_named(own_home: Path, free_port: Callable[[], int]) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = run_command(own_home, "ui", "--port", str(port))

    assert result.status == 2
    assert f"port {port} on 127.0.0.1 cannot be used" in result.stderr
    assert "--port" in result.stderr
