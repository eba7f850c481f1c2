"""Contestants that take turns: each is a process of its own, and only one computes at a time.

The contestant's side asks `Turns` before every step; the other side is `Contestant`. They talk in
lines over the contestant's standard input and output.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.common import PROJECT, THREADS, tell

# The start of every turn is not counted: caches are cold, and a loader's queue is full.
LEAD_IN_SECONDS = 0.5


class Turns:
    """Asked before every step; waits there for its next turn, and tells what the last one gave.

    Args:
        batch_size: Images a step.
        synchronize: Waits until all work given to a GPU is done.
    """

    def __init__(self, batch_size: int, synchronize: Callable[[], None] = lambda: None) -> None:
        self._batch_size = batch_size
        self._synchronize = synchronize
        self._seconds: float | None = None  # of the turn that goes on
        self._asked = 0.0
        self._counted_from: float | None = None
        self._steps = 0

    def __call__(self) -> str | None:
        """None to go on, or the reason to stop."""
        if self._seconds is not None:
            now = time.perf_counter()
            if self._counted_from is not None:
                self._steps += 1
                if now - self._counted_from >= self._seconds:
                    self._synchronize()
                    self._tell(time.perf_counter() - self._counted_from)
            elif now - self._asked >= LEAD_IN_SECONDS:
                self._synchronize()
                self._counted_from, self._steps = time.perf_counter(), 0
        if self._seconds is None:
            line = sys.stdin.readline()
            if not line:
                return "the measurement is over"
            self._seconds, self._asked = float(line), time.perf_counter()
            self._counted_from = None
        return None

    def _tell(self, seconds: float) -> None:
        images = self._steps * self._batch_size
        print(json.dumps({"images": images, "seconds": seconds}), flush=True)
        self._seconds = None


class Contestant:
    """A process that measures itself when it is its turn.

    Args:
        module: What to run.
        arguments: Its arguments.
        environment: Variables for it beside those of this process.
    """

    def __init__(
        self,
        module: str,
        arguments: list[str | Path],
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=PROJECT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def turn(self, seconds: float) -> float:
        """Let it work for so long; returns its images per second."""
        assert self._process.stdin is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contestant ended with status {self._process.wait()}")
        told: dict[str, Any] = json.loads(line)
        return told["images"] / told["seconds"]

    def end(self) -> str:
        """Let it leave; returns what it says at its end."""
        last_words, _ = self._process.communicate()  # closes its input
        return last_words


def take_turns(
    contestants: dict[str, Contestant], seconds: float, rounds: int, warm_up_seconds: float
) -> dict[str, list[float]]:
    """Images per second of each contestant in each round; who begins moves on by one a round."""
    names = list(contestants)
    found: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        contestants[name].turn(warm_up_seconds)
    for index in range(rounds):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            found[name].append(contestants[name].turn(seconds))
        tell(", ".join(f"{name} {found[name][-1]:.0f}" for name in names))
    return found


def use_two_threads() -> None:
    """Let torch compute with as many threads as the measurements are for."""
    import torch

    torch.set_num_threads(THREADS)
