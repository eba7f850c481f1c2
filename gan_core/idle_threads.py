"""How long a thread that computes stays awake while it waits for the others.

OpenMP lets it spin for milliseconds, which pays only for whom the machine is there alone: a thread
that lost its core to another program keeps all others spinning, and the system from giving it one
of theirs.
"""

import os

# How often a thread looks before it sleeps. More costs a training most of its speed beside other
# programs, and gains it little alone (`benchmarks.thread_waiting`).
SPINS = "1000"
SPIN_VARIABLE = "GOMP_SPINCOUNT"
POLICY_VARIABLE = "OMP_WAIT_POLICY"


def let_idle_threads_sleep() -> None:
    """Let threads that wait give their core away soon, here and in processes started from here.

    Who set one of OpenMP's variables for it keeps their choice. PyTorch reads them while it is
    imported: afterwards, this only holds for processes that are started from here.
    """
    if POLICY_VARIABLE not in os.environ:
        os.environ.setdefault(SPIN_VARIABLE, SPINS)
