"""Which device a training gets: one that no other training has, with the most free memory.

Dagster's pool makes runs wait in its queue; runs of the command line do not pass that queue. The
locks are the system's: they are free when their holder is dead.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import filelock

from gan_core.errors import FoundryError
from pipelines import home
from pipelines.environment import environment

CPU = "cpu"
POOL = "gpu"  # Dagster's, of the stages that train
VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
UUID_BEGIN = "GPU-"
POLL_SECONDS = 1.0
QUERY = ("nvidia-smi", "--query-gpu=index,uuid,memory.free", "--format=csv,noheader,nounits")
QUERY_SECONDS = 30.0


@dataclass(frozen=True)
class Gpu:
    """A GPU as the driver sees it."""

    index: str
    uuid: str
    free_mebibytes: int


def visible_gpus() -> list[Gpu]:
    """The GPUs that this process may use, that with the most free memory first.

    `CUDA_VISIBLE_DEVICES` is obeyed, by index, UUID or its beginning, or the name of a part (MIG).
    Without NVIDIA's driver there are none.
    """
    program = shutil.which(QUERY[0])
    if program is None:
        return []
    try:
        asked = subprocess.run(
            [program, *QUERY[1:]],
            capture_output=True,
            text=True,
            timeout=QUERY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FoundryError(
            f"{program} has not answered for {QUERY_SECONDS:g} s; repair the GPU's driver, or set "
            "training.device to cpu."
        ) from None
    lines = [[part.strip() for part in line.split(",")] for line in asked.stdout.splitlines()]
    # Beside them stand warnings; a driver without a GPU says so in one line, and fails.
    rows = [line for line in lines if len(line) == 3 and line[1].startswith(UUID_BEGIN)]
    # Where the memory is the machine's own, or not ours to see, its size is no number.
    gpus = [Gpu(index, uuid, int(free) if free.isdigit() else 0) for index, uuid, free in rows]
    visible = os.environ.get(VISIBLE_VARIABLE)
    if visible is not None:
        named = [name.strip() for name in visible.split(",")]
        begins = tuple(name for name in named if name.startswith(UUID_BEGIN))  # as CUDA takes it
        gpus = [gpu for gpu in gpus if gpu.index in named or gpu.uuid.startswith(begins)]
        # A part of one, which the driver does not list here.
        gpus += [Gpu(name, name, 0) for name in named if name.startswith("MIG-")]
    return sorted(gpus, key=lambda gpu: -gpu.free_mebibytes)


@contextlib.contextmanager
def devices_to_oneself(
    device: str,
    count: int,
    on_wait: Callable[[], None],
    while_waiting: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, ...]]:
    """Hold devices while the block runs; programs that it starts see these GPUs alone.

    Args:
        device: `cpu`, or `cuda` for GPUs.
        count: How many GPUs, at most as many as there are.
        on_wait: Called once if other processes have them.
        while_waiting: Called every second meanwhile; its error ends the waiting.

    Yields:
        `cpu`, or the GPUs' UUIDs.
    """
    waited = False
    while (held := _take(device, count)) is None:
        if not waited:
            on_wait()
            waited = True
        while_waiting()
        time.sleep(POLL_SECONDS)
    with contextlib.ExitStack() as stack:
        for lock in held.values():
            stack.callback(lock.release)
        gpus = [name for name in held if name != CPU]
        if gpus:
            stack.enter_context(environment({VISIBLE_VARIABLE: ",".join(gpus)}))
        yield tuple(held)


def _take(device: str, count: int) -> dict[str, filelock.BaseFileLock] | None:
    """Locks of as many free devices as are wanted, or None if there are too few now."""
    gpus = [] if device == CPU else visible_gpus()
    names = [gpu.uuid for gpu in gpus] or [CPU]
    wanted = min(count, len(names)) if gpus else 1
    held: dict[str, filelock.BaseFileLock] = {}
    # One at a time looks, so that two who want several do not each hold a part.
    with filelock.FileLock(home.home() / "devices.lock"):
        for name in names:
            lock = filelock.FileLock(home.home() / f"device-{name.replace('/', '-')}.lock")
            with contextlib.suppress(filelock.Timeout):
                lock.acquire(timeout=0)
                held[name] = lock
            if len(held) == wanted:
                return held
        for taken in held.values():
            taken.release()
    return None
