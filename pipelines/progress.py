"""What a run tells somebody who watches it in the same process: stages, and training as it goes.

Without a watcher nothing happens. Dagster's own event log is written elsewhere.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ProgressEvent:
    """One thing that happened.

    Attributes:
        kind: `stage_started`, `waiting` (for the device), `stage_finished`, `training`,
            `trial_started`, `trial_finished`, `note` or `warning`.
        stage: The asset's name without its prefix, or `trial` or `sweep`.
        values: `reused` and `seconds` of a finished stage; a line of the training journal; the
            `text` of a trial, note or warning, and a trial's `outcome`.
    """

    kind: str
    stage: str
    values: dict[str, Any] = field(default_factory=dict)


_watchers: list[Callable[[ProgressEvent], None]] = []


@contextlib.contextmanager
def watching(watcher: Callable[[ProgressEvent], None]) -> Iterator[None]:
    """Call a function for every event while the block runs."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def publish(kind: str, stage: str, **values: Any) -> None:
    """Tell the watchers."""
    for watcher in _watchers:
        watcher(ProgressEvent(kind, stage, values))
