"""The servers of `gan-foundry ui` as child processes: started, started again, ended together."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from gan_core.errors import FoundryError
from pipelines import home

LOG_FOLDER = "server_logs"  # Dagster empties a folder called logs
STOP_SECONDS = 20.0
MOST_RESTARTS = 5  # of one server, within
RESTARTS_SECONDS = 600.0


@dataclass
class Service:
    """One server, with the process groups that it has had and its log.

    Attributes:
        name: For people.
        command: Its program, which lies beside Python's, and its arguments.
        log: Gets what it prints.
        processes: The last one is the present one. Those before are over, but what they started
            may go on: a run, for example.
        deaths: When it ended by itself.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    deaths: list[float] = field(default_factory=list)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The present one."""
        return self.processes[-1]

    def start(self) -> None:
        """Start it in a session of its own; it ends when this process is killed."""
        program = shutil.which(self.command[0], path=str(Path(sys.executable).parent))
        command = [program or self.command[0], *self.command[1:]]
        if with_parent := shutil.which("setpriv"):  # of util-linux
            command = [with_parent, "--pdeathsig", "TERM", "--", *command]
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=home.PROJECT,
                start_new_session=True,
            )
        self.processes.append(process)

    def require_alive(self) -> None:
        """Raise FoundryError with the end of its log if it has ended."""
        if self.process.poll() is not None:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            raise FoundryError(
                f"{self.name} ended with status {self.process.returncode} "
                f"({lines[-1] if lines else 'no output'}); its log is {self.log}."
            )

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to everything that it has started."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)


class Services:
    """The servers of one `gan-foundry ui`.

    Args:
        log_suffix: Of its logs' names, where another one of the same home has those without.
    """

    def __init__(self, log_suffix: str = "") -> None:
        self._log_suffix = log_suffix
        self._services: list[Service] = []

    def start(self, name: str, *command: str) -> None:
        """Start one more."""
        folder = home.home() / LOG_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"{name}{self._log_suffix}.log"
        log.unlink(missing_ok=True)
        service = Service(name, command, log)
        self._services.append(service)
        service.start()

    def require_alive(self) -> None:
        """Raise FoundryError if one of them has ended."""
        for service in self._services:
            service.require_alive()

    def start_again(self) -> list[str]:
        """Start those again that have ended by themselves; returns their names.

        Raises:
            FoundryError: One ends again and again.
        """
        found = []
        now = time.monotonic()
        for service in self._services:
            if service.process.poll() is None:
                continue
            recent = [death for death in service.deaths if now - death < RESTARTS_SECONDS]
            if len(recent) >= MOST_RESTARTS:
                service.require_alive()
            service.deaths = [*recent, now]
            service.start()
            found.append(service.name)
        return found

    def stop(self) -> None:
        """End them all: with SIGTERM, and what is left after a while with SIGKILL."""
        for service in self._services:
            service.signal_all(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for service in self._services:
            with contextlib.suppress(subprocess.TimeoutExpired):
                service.process.wait(max(0.1, deadline - time.monotonic()))
            service.signal_all(signal.SIGKILL)
            service.process.wait()
