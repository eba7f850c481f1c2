"""Why a training should end before its time: a signal came, or the parent has died."""

import os
import signal


class StopRequest:
    """The reason to end the training, when it is asked for one.

    Signals are noted from now on instead of ending the process.

    Args:
        parent: Process id of the parent whose death ends the training; None to outlive it.
    """

    def __init__(self, parent: int | None) -> None:
        self._parent = parent
        self._signal: str | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, _: object) -> None:
        self._signal = f"received {signal.Signals(number).name}"

    def __call__(self) -> str | None:
        """The reason to stop, or None."""
        if self._parent is not None and os.getppid() != self._parent:
            return f"the parent process {self._parent} has died"
        return self._signal
