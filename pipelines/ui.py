"""`gan-foundry ui`: Dagster's pages and daemon and MLflow's server, as children of one process."""

import contextlib
import os
import signal
import socket
import time

import dagster as dg
import filelock
import requests
from rich.console import Console

from gan_core.errors import FoundryError, hide_passwords
from pipelines import home, tracking
from pipelines.devices import POOL, visible_gpus
from pipelines.instance import make_databases
from pipelines.run_processes import end_dead_runs
from pipelines.services import LOG_FOLDER, Services
from pipelines.terminal import error_console
from pipelines.webserver import HOST

LOCK_FILE = "ui.lock"
START_SECONDS = 120.0


class StopSignal(BaseException):  # it is no error, and no library may swallow it
    """Somebody asked the servers to end."""


def serve(port: int, mlflow_port: int, read_only: bool = False) -> None:
    """Run the servers until SIGINT or SIGTERM, then end them all.

    Args:
        port: Of Dagster's pages.
        mlflow_port: Of MLflow's pages.
        read_only: Whether the pages only show; what is scheduled still runs.

    Raises:
        FoundryError: They run in this home already, a port is taken, or a server did not start, or
            ends again and again.
    """
    console = error_console()
    home.require_checkout()
    daemon_lock = filelock.FileLock(home.prepare_home() / LOCK_FILE)
    with_daemon = _becomes_first(daemon_lock, read_only)
    own_mlflow = not home.tracking_uri().startswith(("http://", "https://"))
    for number in (port, mlflow_port) if own_mlflow else (port,):
        require_free(number, "--port and --mlflow-port")
    dagster_address = f"http://{HOST}:{port}"
    own_address = f"http://{HOST}:{mlflow_port}"
    mlflow_address = own_address if own_mlflow else tracking.run_page_base()
    # Links lead here, unless the environment knows an address that others can open.
    os.environ.setdefault(tracking.DAGSTER_UI_VARIABLE, dagster_address)
    os.environ.setdefault(tracking.MLFLOW_UI_VARIABLE, own_address)
    os.environ.setdefault("DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS", "600")  # one hashes images

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise_stop)
    services = Services("" if with_daemon else f"-{port}")
    try:
        console.print("starting Dagster and MLflow …")
        make_databases()
        if with_daemon:
            free_what_the_dead_held()
        if own_mlflow:
            tracking.connect()
            services.start("mlflow", *_webserver("mlflow", mlflow_port, read_only))
        services.start("dagster-webserver", *_webserver("dagster", port, read_only))
        if with_daemon:
            workspace = ("--workspace", str(home.WORKSPACE_FILE))
            services.start("dagster-daemon", "dagster-daemon", "run", *workspace)
        own = [f"{dagster_address}/server_info", *([f"{own_address}/health"] * own_mlflow)]
        _wait_until_up(services, own)
        if not own_mlflow:
            _tell_if_it_is_down(console, mlflow_address)
        console.print(f"Dagster  {dagster_address}\nMLflow   {mlflow_address}\nCtrl-C stops both.")
        while True:
            for name in services.start_again():
                console.print(f"{name} ended by itself and was started again")
            time.sleep(0.5)
    except StopSignal:
        console.print("stopping …")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        services.stop()
        daemon_lock.release()


def _becomes_first(lock: filelock.BaseFileLock, read_only: bool) -> bool:
    """Whether the home has no other daemon; pages that only show can do without one.

    Raises:
        FoundryError: It has, and these are to change things.
    """
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        if read_only:
            return False
        raise FoundryError(
            f"another `gan-foundry ui` has the daemon of {home.home()}, and Dagster supports "
            "one; use its pages, stop it, or show others beside it with --read-only, --port "
            "and --mlflow-port."
        ) from error
    return True


def _tell_if_it_is_down(console: Console, mlflow_address: str) -> None:
    """Say so where a tracking server elsewhere does not answer: trainings do not wait for it."""
    if problem := tracking.server_problem(home.tracking_uri()):
        text = f"MLflow at {mlflow_address} does not answer ({hide_passwords(problem)}); "
        console.print(f"{text}trainings go on without it", markup=False, soft_wrap=True)


def _raise_stop(*_: object) -> None:
    raise StopSignal


def free_what_the_dead_held() -> None:
    """End the runs whose processes are gone, and let as many train at once as there are GPUs."""
    with dg.DagsterInstance.get() as instance:
        end_dead_runs(instance)
        instance.event_log_storage.set_concurrency_slots(POOL, max(1, len(visible_gpus())))


def _webserver(name: str, port: int, read_only: bool) -> tuple[str, ...]:
    command = ("python", "-m", "pipelines.webserver", name, "--port", str(port))
    return (*command, "--read-only") if read_only else command


def require_free(port: int, options: str) -> None:
    """Raise FoundryError if the port is taken; `options` are those that choose another."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise FoundryError(
                f"port {port} on {HOST} cannot be used ({error.strerror}); stop what uses it, or "
                f"choose another with {options}."
            ) from error


def _wait_until_up(services: Services, addresses: list[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    for address in addresses:
        while True:
            services.require_alive()
            if answers(address):
                break
            if time.monotonic() > deadline:
                raise FoundryError(
                    f"{address} did not answer within {START_SECONDS:.0f} s; the logs are in "
                    f"{home.home() / LOG_FOLDER}."
                )
            time.sleep(0.3)


def answers(address: str) -> bool:
    """Whether a server answers there; a proxy of the environment is not asked for one of ours."""
    with requests.Session() as session, contextlib.suppress(requests.RequestException):
        session.trust_env = not address.startswith(f"http://{HOST}:")
        return session.get(address, timeout=5).ok
    return False
