"""A step that is recorded once as a CUDA graph and then replayed, penalties included.

The host then starts one graph a step instead of a thousand small kernels.
"""

from collections.abc import Callable
from typing import Protocol

import torch

from gan_core.training.step import Batch

WARM_UP_STEPS = 3  # what is lazy (optimiser state, kernel choice) must have happened before

Recorded = Callable[[], torch.Tensor]


class Play(Protocol):
    """What `AdversarialGame.step` is."""

    def __call__(
        self,
        batch: Batch,
        probability: torch.Tensor,
        *,
        with_penalty: bool = True,
        with_generator: bool = True,
    ) -> torch.Tensor: ...


class GraphedStep:
    """Plays steps like the function it is given, which it records.

    The first steps of each kind are played as they are; they count like all others. Every later
    one copies its batch to where the recording reads it and replays that.

    Args:
        play: `AdversarialGame.step`, on a GPU.
        record: Turns a function without arguments into one that replays what it did; by default a
            CUDA graph.
    """

    def __init__(self, play: Play, record: Callable[[Recorded], Recorded] | None = None) -> None:
        self._play = play
        self._record = record or record_cuda_graph
        self._played: dict[tuple[bool, bool], int] = {}
        self._recorded: dict[tuple[bool, bool], Recorded] = {}
        self._batch: Batch | None = None

    def __call__(
        self,
        batch: Batch,
        probability: torch.Tensor,
        *,
        with_penalty: bool = True,
        with_generator: bool = True,
    ) -> torch.Tensor:
        """One step; arguments and result as for `AdversarialGame.step`.

        The probability is read where it lies, so it must be the same tensor in every step.
        """
        kind = (with_penalty, with_generator)
        still = self._hold_still(batch)

        def play() -> torch.Tensor:
            return self._play(
                still, probability, with_penalty=with_penalty, with_generator=with_generator
            )

        if kind not in self._recorded:
            self._played[kind] = self._played.get(kind, 0) + 1
            if self._played[kind] <= WARM_UP_STEPS:
                return on_side_stream(play)
            self._recorded[kind] = self._record(play)
        return self._recorded[kind]()

    def _hold_still(self, batch: Batch) -> Batch:
        """The batch, in tensors that stay where they are."""
        if self._batch is None:
            self._batch = Batch(*(tensor.clone() for tensor in batch.tensors))
        else:
            for target, source in zip(self._batch.tensors, batch.tensors, strict=True):
                target.copy_(source)
        return self._batch


def record_cuda_graph(function: Recorded) -> Recorded:
    """Capture what a function does on the GPU, without doing it; the result does it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()

    def replay() -> torch.Tensor:
        graph.replay()
        return result

    return replay


def on_side_stream(function: Recorded) -> torch.Tensor:
    """Run on a stream of its own, as warming up for a capture must be."""
    if not torch.cuda.is_available():
        return function()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        result = function()
    torch.cuda.current_stream().wait_stream(stream)
    return result
