"""`python -m gan_core.training FOLDER`: run the job of a training folder, once, alone, to its end.

SIGINT, SIGTERM and the death of the parent named by `--parent` end it with a checkpoint.
"""

import argparse
import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock
from pydantic import ValidationError

from gan_core.disk import is_disk_full
from gan_core.errors import AlreadyTrainingError, FoundryError, OutOfMemoryError
from gan_core.idle_threads import give_way_to_other_programs
from gan_core.training.job import (
    CHECKPOINT_FILE,
    EXIT_DISK_FULL,
    EXIT_INTERRUPTED,
    EXIT_OUT_OF_MEMORY,
    EXIT_USER_ERROR,
    JOB_FILE,
    LOCK_FILE,
    OWNER_FILE,
    WRITER_LOCK_FILE,
    TrainingJob,
    describe_owner,
)
from gan_core.training.stopping import StopRequest


def main(arguments: list[str] | None = None) -> int:
    """Run a training job; the exit status tells how it ended (see `job`)."""
    parser = argparse.ArgumentParser(prog="python -m gan_core.training", description=__doc__)
    parser.add_argument("folder", type=Path, help=f"the training folder, which holds {JOB_FILE}")
    parser.add_argument(
        "--parent", type=int, metavar="PID", help="end, with a checkpoint, when this parent dies"
    )
    options = parser.parse_args(arguments)
    should_stop = StopRequest(options.parent)
    try:
        reason = _train_alone(options.folder, should_stop)
    except OSError as error:
        if not is_disk_full(error):
            raise
        with contextlib.suppress(OSError):  # the log may lie on the same disk
            print(f"error: the disk of {options.folder} is full", file=sys.stderr)  # noqa: T201
        return EXIT_DISK_FULL
    except FoundryError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_USER_ERROR
    except OutOfMemoryError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_OUT_OF_MEMORY
    if reason is not None:
        with_one = (options.folder / CHECKPOINT_FILE).exists()
        how = "with a checkpoint" if with_one else "before the first checkpoint"
        print(f"stopped {how}: {reason}", file=sys.stderr)  # noqa: T201
        return EXIT_INTERRUPTED
    return 0


def _train_alone(folder: Path, should_stop: StopRequest) -> str | None:
    if not (folder / JOB_FILE).exists():
        raise FoundryError(f"{folder} holds no {JOB_FILE}; give the folder of a training job.")
    try:
        job = TrainingJob.read(folder)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise FoundryError(
            f"{folder / JOB_FILE} describes no job of this version of the program ({where}: "
            f"{first['msg']}); materialize the generator again."
        ) from None
    try:
        with filelock.FileLock(folder / LOCK_FILE, timeout=0):
            (folder / OWNER_FILE).write_text(str(os.getpid()), encoding="utf-8")
            # torch takes seconds to import
            if job.training.launcher == "torchrun":
                from gan_core.training.torchrun import train_in_processes

                return train_in_processes(job, folder, should_stop)
            with _without_garbage_collection():
                from gan_core.training.loop import train

            # A process of several may have outlived the one that started it.
            with filelock.FileLock(folder / WRITER_LOCK_FILE, timeout=0):
                return train(job, folder, should_stop)
    except filelock.Timeout as error:
        raise AlreadyTrainingError(
            f"the job {job.name} in {folder} is already being trained by "
            f"{describe_owner(folder, error.lock_file)}; wait for it or stop it."
        ) from None


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Import without looking for garbage; what was imported is no garbage later, either."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # for libraries that say what was not taken apart


if __name__ == "__main__":
    give_way_to_other_programs()
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # all is written, and to take torch apart takes a second
