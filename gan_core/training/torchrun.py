"""One training in several processes of this machine, started and watched as torchrun does it."""

import errno
import logging
import os
import shutil
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import filelock
import torch
from torch.distributed.elastic.multiprocessing.api import (
    DefaultLogsSpecs,
    LogsSpecs,
    SignalException,
)
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from gan_core.disk import is_disk_full
from gan_core.errors import FoundryError, OutOfMemoryError
from gan_core.idle_threads import give_way_to_other_programs
from gan_core.training.job import (
    EXIT_DISK_FULL,
    EXIT_INTERRUPTED,
    EXIT_OUT_OF_MEMORY,
    EXIT_USER_ERROR,
    KILLED,
    WRITER_LOCK_FILE,
    TrainingJob,
)
from gan_core.training.loop import train
from gan_core.training.processes import joined_processes
from gan_core.training.stopping import StopRequest

WORKER_LOCK_FILE = WRITER_LOCK_FILE.replace("0", "{rank}")
LOG_FOLDER = "torchrun"  # its own files, while it runs
ERROR_FILE = "error.txt"  # what a worker tells the launcher
WATCHER = "torch.distributed.elastic.multiprocessing.api"  # tells of workers that failed
WATCH_SECONDS = 0.2
STARTING_SECONDS = 1.0  # from when torchrun listens for signals until its workers are started


def train_in_processes(
    job: TrainingJob, folder: Path, should_stop: Callable[[], str | None]
) -> str | None:
    """Train with `training.processes` processes that share every batch.

    Arguments, result and errors are those of `gan_core.training.loop.train`. The processes end
    with a checkpoint when this one is asked to stop, and also when it is killed.
    """
    if job.device == "cuda" and job.training.processes > torch.cuda.device_count():
        raise FoundryError(
            f"training.processes is {job.training.processes}, but this machine has "
            f"{torch.cuda.device_count()} GPUs; use at most as many."
        )
    if reason := should_stop():
        return reason
    (folder / ERROR_FILE).unlink(missing_ok=True)  # of an earlier attempt
    logs = folder / LOG_FOLDER
    shutil.rmtree(logs, ignore_errors=True)  # of an attempt whose launcher was killed
    logs.mkdir()
    try:
        return _launch(job, folder, should_stop, DefaultLogsSpecs(log_dir=str(logs)))
    finally:
        shutil.rmtree(logs, ignore_errors=True)


def _launch(
    job: TrainingJob, folder: Path, should_stop: Callable[[], str | None], logs: LogsSpecs
) -> str | None:
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=job.training.processes,
        run_id=job.fingerprint,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        logs_specs=logs,
    )
    _pass_on_signal(should_stop)
    logging.getLogger(WATCHER).addFilter(_write_traceback)
    try:
        elastic_launch(config, _train_as_one)(str(folder), os.getpid())
    except SignalException as error:
        return f"received {signal.Signals(error.sigval).name}"
    except ChildFailedError as error:
        # The one that failed first has told the reason; the others lost their connection.
        statuses = [failure.exitcode for failure in error.failures.values()]
        if EXIT_USER_ERROR in statuses:
            raise FoundryError((folder / ERROR_FILE).read_text(encoding="utf-8")) from None
        if EXIT_OUT_OF_MEMORY in statuses:
            raise OutOfMemoryError((folder / ERROR_FILE).read_text(encoding="utf-8")) from None
        if EXIT_DISK_FULL in statuses:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from None
        if EXIT_INTERRUPTED in statuses:
            return "a process of the training was asked to end"
        if -signal.SIGKILL in statuses:
            raise OutOfMemoryError(KILLED) from None
        raise
    return None


def _write_traceback(record: logging.LogRecord) -> bool:
    """Put a record's exception into its message.

    PyTorch's log would load the compiler for it: three seconds, and a folder of its in $TMPDIR.
    """
    if record.exc_info:
        lines = traceback.format_exception(*record.exc_info)
        record.msg, record.args = f"{record.getMessage()}\n{''.join(lines)}", ()
        record.exc_info = None
    return True


def _pass_on_signal(should_stop: Callable[[], str | None]) -> None:
    """Turn any reason to stop into the signal that torchrun passes on to its workers.

    It listens for that signal from when it has started them; until then ours are noted.
    """
    noting = signal.getsignal(signal.SIGTERM)

    def watch() -> None:
        while not should_stop():
            time.sleep(WATCH_SECONDS)
        if signal.getsignal(signal.SIGTERM) is noting:
            while signal.getsignal(signal.SIGTERM) is noting:
                time.sleep(WATCH_SECONDS)
            time.sleep(STARTING_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _train_as_one(folder_name: str, launcher: int) -> str | None:
    """What each process does; torchrun tells it its place through the environment."""
    folder = Path(folder_name)
    job = TrainingJob.read(folder)
    should_stop = StopRequest(launcher)
    give_way_to_other_programs()
    # Of kernels with one channel, whose strides are ambiguous; it only says that this is slower.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if job.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # If torchrun itself was killed, its workers may still be at work when the job starts again.
    with (
        filelock.FileLock(folder / WORKER_LOCK_FILE.format(rank=rank)),
        joined_processes(rank, count, "env://", job.device) as processes,
    ):
        # At once: torchrun asks the process that ended first, and the others lose it only then.
        try:
            reason = train(job, folder, should_stop, processes)
        except FoundryError as error:
            if rank == 0 or not (folder / ERROR_FILE).exists():  # all may have the same error
                (folder / ERROR_FILE).write_text(str(error), encoding="utf-8")
            os._exit(EXIT_USER_ERROR)
        except OutOfMemoryError as error:
            (folder / ERROR_FILE).write_text(str(error), encoding="utf-8")
            os._exit(EXIT_OUT_OF_MEMORY)
        except OSError as error:
            if not is_disk_full(error):
                raise
            os._exit(EXIT_DISK_FULL)
    # Nothing is left to save: torchrun may end this one at once, and may have asked for it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if reason is not None or should_stop():
        # torchrun is closing down or dead; a plain return would wait for it to take the result.
        os._exit(EXIT_INTERRUPTED)
    return None
