"""`gan-foundry ui`: Dagster's pages and daemon and MLflow's server, as children of one process."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import requests

from gan_core.errors import FoundryError
from pipelines import home, tracking
from pipelines.instance import make_databases
from pipelines.terminal import error_console
from pipelines.webserver import HOST

LOG_FOLDER = "server_logs"  # Dagster empties a folder called logs
START_SECONDS = 120.0
STOP_SECONDS = 20.0


@dataclass
class Service:
    """One child process in a group of its own, with its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


class StopSignal(BaseException):  # it is no error, and no library may swallow it
    """Somebody asked the servers to end."""


def serve(port: int, mlflow_port: int, read_only: bool = False) -> None:
    """Run the servers until SIGINT or SIGTERM, then end them all.

    Args:
        port: Of Dagster's pages.
        mlflow_port: Of MLflow's pages.
        read_only: Whether the pages only show; what is scheduled still runs.

    Raises:
        FoundryError: A port is taken, or a server did not start or ended by itself.
    """
    console = error_console()
    home.require_checkout()
    home.prepare_home()
    own_mlflow = not home.tracking_uri().startswith(("http://", "https://"))
    for number in (port, mlflow_port) if own_mlflow else (port,):
        _require_free(number)
    dagster_address = f"http://{HOST}:{port}"
    os.environ[tracking.DAGSTER_UI_VARIABLE] = dagster_address
    os.environ[tracking.MLFLOW_UI_VARIABLE] = f"http://{HOST}:{mlflow_port}"
    mlflow_address = tracking.run_page_base()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise_stop)
    services: list[Service] = []
    try:
        console.print("starting Dagster and MLflow …")
        make_databases()
        if own_mlflow:
            tracking.connect()
            services.append(_start("mlflow", _webserver("mlflow", mlflow_port, read_only)))
        services.append(_start("dagster-webserver", _webserver("dagster", port, read_only)))
        daemon = ["dagster-daemon", "run", "--workspace", str(home.WORKSPACE_FILE)]
        services.append(_start("dagster-daemon", daemon))
        _wait_until_up(services, [f"{dagster_address}/server_info", f"{mlflow_address}/health"])
        console.print(f"Dagster  {dagster_address}\nMLflow   {mlflow_address}\nCtrl-C stops both.")
        while True:
            _require_alive(services)
            time.sleep(0.5)
    except StopSignal:
        console.print("stopping …")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _stop(services)


def _raise_stop(*_: object) -> None:
    raise StopSignal


def _start(name: str, command: list[str]) -> Service:
    program = shutil.which(command[0], path=str(Path(sys.executable).parent)) or command[0]
    logs = home.home() / LOG_FOLDER
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home.PROJECT,
            start_new_session=True,
        )
    return Service(name, process, log)


def _webserver(name: str, port: int, read_only: bool) -> list[str]:
    command = ["python", "-m", "pipelines.webserver", name, "--port", str(port)]
    return [*command, "--read-only"] if read_only else command


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise FoundryError(
                f"port {port} on {HOST} cannot be used ({error.strerror}); stop what uses it, or "
                "choose others with --port and --mlflow-port."
            ) from error


def _wait_until_up(services: list[Service], addresses: list[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    for address in addresses:
        while True:
            _require_alive(services)
            with contextlib.suppress(requests.RequestException):
                if requests.get(address, timeout=5).ok:
                    break
            if time.monotonic() > deadline:
                raise FoundryError(
                    f"{address} did not answer within {START_SECONDS:.0f} s; the logs are in "
                    f"{home.home() / LOG_FOLDER}."
                )
            time.sleep(0.3)


def _require_alive(services: list[Service]) -> None:
    for service in services:
        if service.process.poll() is not None:
            lines = service.log.read_text(errors="replace").splitlines()
            raise FoundryError(
                f"{service.name} ended with status {service.process.returncode} "
                f"({lines[-1] if lines else 'no output'}); its log is {service.log}."
            )


def _stop(services: list[Service]) -> None:
    """End every process group: with SIGTERM, and what is left after a while with SIGKILL."""
    for service in services:
        _signal_group(service, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for service in services:
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.process.wait(max(0.1, deadline - time.monotonic()))
        _signal_group(service, signal.SIGKILL)
        service.process.wait()


def _signal_group(service: Service, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(service.process.pid, number)
