"""Idle threads of a computation that sleep while other programs want their cores.

A thread of OpenMP that waits for the others of its team spins for milliseconds. Alone that is the
fastest: nobody has to wake it up, and the host of a virtual machine sees no core at rest that it
could give to somebody else. Beside other programs it costs most of the speed: a thread that lost
its core keeps all others spinning, and the system from giving it one of theirs
(`benchmarks.thread_waiting`).

GNU's OpenMP hardly spins while a process has more threads in teams than cores (`do_spin` in
libgomp's `config/linux/wait.h`). So a watcher looks how long this process's threads wait for a
core, and while they do, it adds teams that do nothing.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

# Who sets one of them has chosen how long idle threads spin.
CHOICES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
LOOK_SECONDS = 1.0
# Seconds that this process's threads wait for a core, in each second.
CROWDED, CALM = 0.2, 0.1
TEAM_NAME = "makes-idle-threads-sleep"
TASKS = Path("/proc/self/task")


def give_way_to_other_programs() -> None:
    """Let this process's idle threads sleep, from now on, whenever others want the cores.

    The environment variables `GOMP_SPINCOUNT` and `OMP_WAIT_POLICY` keep their meaning: nothing is
    done where one is set.
    """
    if not any(name in os.environ for name in CHOICES):
        threading.Thread(target=watch_others, name="gives-way", daemon=True).start()


def watch_others() -> None:
    """Never ends: look each second, and give way or stay awake."""
    crowd = contextlib.ExitStack()
    crowded = False
    before, seconds = waits_for_a_core(), time.monotonic()
    while True:
        time.sleep(LOOK_SECONDS)
        after, now = waits_for_a_core(), time.monotonic()
        # Where the system does not tell, others may be waiting.
        waited = sum(wait - before.get(task, wait) for task, wait in after.items())
        share = waited / (now - seconds) if after else 1.0
        if not crowded and share > CROWDED and "torch" in sys.modules:
            crowd.enter_context(more_threads_than_cores())
            crowded = True
        elif crowded and share < CALM:
            crowd.close()
            crowded = False
        before, seconds = after, now


def waits_for_a_core() -> dict[str, float]:
    """Seconds that each thread of this process has been ready to run without a core.

    Empty where the system keeps no account (`/proc/*/schedstat`, Linux with CONFIG_SCHED_INFO).
    """
    found = {}
    for task in os.listdir(TASKS):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            nanoseconds = (TASKS / task / "schedstat").read_text(encoding="utf-8").split()[1]
            found[task] = int(nanoseconds) * 1e-9
    return found


@contextlib.contextmanager
def more_threads_than_cores() -> Iterator[None]:
    """While this lasts, OpenMP's idle threads in this process sleep almost at once."""
    import torch

    end = threading.Event()
    # Each team adds all its threads but the one that begins it.
    cores, added = len(os.sched_getaffinity(0)), torch.get_num_threads() - 1
    count = max(cores - added - 1, 0) // added + 1 if added else 0
    teams = [
        threading.Thread(target=_keep_a_team, args=(end,), name=TEAM_NAME, daemon=True)
        for _ in range(count)
    ]
    for team in teams:
        team.start()
    try:
        yield
    finally:
        end.set()
        for team in teams:
            team.join()


def _keep_a_team(end: threading.Event) -> None:
    import torch

    torch.zeros(1 << 20)  # large enough for all threads of a team
    end.wait()
