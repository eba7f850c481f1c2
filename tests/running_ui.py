"""`gan-foundry ui` in a process of its own, as a person starts it."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.conftest import PROJECT

GAN_FOUNDRY = Path(sys.executable).with_name("gan-foundry")
OF_OTHERS = ("MLFLOW_", "GAN_FOUNDRY_")


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RunningUi:
    """The servers, with a home of their own, of this project or of a copy of it.

    Attributes:
        home: Dagster's home; the output is written beside it.
        dagster: Address of Dagster's pages.
        mlflow: Address of MLflow's pages.
    """

    def __init__(self, home: Path, *options: str, project: Path = PROJECT) -> None:
        self.home = home
        self.output = home.parent / "ui.txt"
        home.mkdir(parents=True, exist_ok=True)
        ports = [f"--port={free_port()}", f"--mlflow-port={free_port()}"]
        clean = {key: text for key, text in os.environ.items() if not key.startswith(OF_OTHERS)}
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [GAN_FOUNDRY, "ui", *ports, *options],
                env={**clean, "DAGSTER_HOME": str(home), "PYTHONPATH": str(project)},
                cwd=project,
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
        """What it printed so far."""
        return self.output.read_text()

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """What Dagster answers."""
        answer = requests.post(
            f"{self.dagster}/graphql", json={"query": query, "variables": variables}, timeout=60
        )
        return dict(answer.json()["data"])

    def run_statuses(self) -> dict[str, str]:
        """The status of each run, by its identifier."""
        found = self.graphql("{runsOrError {... on Runs {results {id status}}}}")["runsOrError"]
        return {run["id"]: run["status"] for run in found["results"]}

    def experiments(self) -> dict[str, str]:
        """The active experiments' identifiers, by their names."""
        answer = self.ask_mlflow("experiments/search", max_results=100)
        return {item["name"]: item["experiment_id"] for item in answer.json()["experiments"]}

    def ask_mlflow(self, what: str, **values: Any) -> requests.Response:
        """What MLflow answers to a program."""
        return requests.post(f"{self.mlflow}/api/2.0/mlflow/{what}", json=values, timeout=60)

    def listening(self) -> set[tuple[str, int]]:
        """The addresses and ports at which the servers and all that they started can be reached."""
        parent = psutil.Process(self.process.pid)
        found = set()
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                for connection in process.net_connections("inet"):
                    if connection.status == psutil.CONN_LISTEN:
                        found.add((connection.laddr.ip, connection.laddr.port))
        return found

    def stop(self, number: int) -> list[psutil.Process]:
        """Send a signal, wait for the end, and give back what is still alive."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        assert len(family) >= 3
        self.process.send_signal(number)
        assert self.process.wait(40) == 0, self.text()
        _, alive = psutil.wait_procs(family, timeout=5)
        return alive
