"""The processes of one training: usually one, or several that share every batch.

What they agree on goes through here: gradients, statistics of normalisation, decisions.
"""

import contextlib
import datetime
import inspect
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gan_core.optimizer import without_compiler

# All but the chief wait while it evaluates; whoever dies is noticed by the launcher.
LONGEST_WAIT = datetime.timedelta(days=7)
# Of DistributedDataParallel: whether each forward pass sends the buffers. Its name has changed.
BUFFERS_OPTION = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)


class Processes:
    """The group that this process trains in.

    Attributes:
        rank: This process's place, from 0.
        count: How many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank = rank
        self.count = count

    @property
    def is_chief(self) -> bool:
        """Whether this process writes files and decides."""
        return self.rank == 0

    def own_part(self, rows: torch.Tensor, parts: int = 1) -> torch.Tensor:
        """This process's share of the rows of a whole batch, in order.

        Args:
            rows: Of the batch.
            parts: In which gradients are accumulated: each is that of one process's batch, shared.
        """
        if self.count == 1:
            return rows
        return rows.unflatten(0, (parts, self.count, -1))[:, self.rank].flatten(0, 1)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, with its gradients averaged over all processes in `backward`."""
        if self.count == 1:
            return module
        # Statistics of normalisation are already equal, see `share_batch_statistics`.
        wrapped = AveragedGradients(module, **{BUFFERS_OPTION: False})
        wrapped.register_comm_hook(None, average_in_order)
        return wrapped

    def average(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over all processes."""
        if self.count > 1:
            dist.all_reduce(values)
            values = values / self.count
        return values

    def agree(self, value: Any) -> Any:
        """The chief's value, in every process; the others' are not looked at."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]


ALONE = Processes()


class AveragedGradients(DistributedDataParallel):
    """PyTorch's, without PyTorch's compiler, which it would load in every process."""

    _inside_ddp_forward = contextlib.contextmanager(
        without_compiler(DistributedDataParallel._inside_ddp_forward)
    )

    def __init__(self, module: nn.Module, **options: Any) -> None:
        with _compiler_stays_away():
            super().__init__(module, **options)


@contextlib.contextmanager
def _compiler_stays_away() -> Iterator[None]:
    """Answer in the compiler's place what DistributedDataParallel asks it when it is made.

    It asks in which way to compile; the answer is the default, and nothing is compiled here.
    """
    if "torch._dynamo" in sys.modules:  # then it costs nothing to ask
        yield
        return
    answers = SimpleNamespace(get_optimize_ddp_mode=lambda: "ddp_optimizer")
    vars(torch)["_dynamo"] = SimpleNamespace(utils=answers)
    try:
        yield
    finally:
        del vars(torch)["_dynamo"]


def average_in_order(_: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # type: ignore[name-defined]
    """Average gradients over all processes, each number in the order of the ranks.

    Backends add in an order that depends on where in its bucket a number lies, and buckets are laid
    out anew after the first step of every attempt: a resumed training of three processes would not
    end with the same bits. (With two there is one order.)
    """
    own = bucket.buffer()
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]

    def averaged(_: torch.futures.Future) -> torch.Tensor:
        total = parts[0]
        for part in parts[1:]:
            total += part
        return own.copy_(total / len(parts))

    return dist.all_gather(parts, own, async_op=True).get_future().then(averaged)


def without_averaging(module: nn.Module, *, averaging: bool) -> contextlib.AbstractContextManager:
    """Keep gradients to this process for now, for all but the last part of a batch."""
    if averaging or not isinstance(module, DistributedDataParallel):
        return contextlib.nullcontext()
    return module.no_sync()


@contextlib.contextmanager
def joined_processes(rank: int, count: int, store: str, device: str) -> Iterator[Processes]:
    """Take this process's place in a training while the block runs.

    Args:
        rank: Its place.
        count: How many there are.
        store: Where they meet, such as `tcp://127.0.0.1:29500` or `env://`.
        device: `cuda` averages on the GPUs; decisions always go over the CPU.
    """
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(
        backend, init_method=store, rank=rank, world_size=count, timeout=LONGEST_WAIT
    )
    try:
        yield Processes(rank, count)
    finally:
        dist.destroy_process_group()


class _SumOverProcesses(torch.autograd.Function):
    """A tensor's sum over all processes; each one's gradient is the sum of all gradients.

    PyTorch's own, in torch.distributed.nn, is deprecated without another that has a gradient.
    """

    @staticmethod
    def forward(_: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, upstream: torch.Tensor) -> torch.Tensor:
        return _SumOverProcesses.apply(upstream)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the whole batch of all processes.

    torch.nn.SyncBatchNorm does the same on GPUs only.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """As BatchNorm2d does it, where each process holds an equal part of the batch."""
        if not self.training:
            return super().forward(images)
        assert self.running_mean is not None  # noqa: S101
        assert self.running_var is not None  # noqa: S101
        processes = dist.get_world_size()
        x = images.float()
        mean = _SumOverProcesses.apply(x.mean(dim=(0, 2, 3))) / processes
        centred = x - mean[:, None, None]
        # Around the mean of all: E[x^2] - E[x]^2 loses its digits where the mean is large.
        variance = _SumOverProcesses.apply(centred.square().mean(dim=(0, 2, 3))) / processes
        with torch.no_grad():
            count = processes * x.numel() / x.shape[1]
            momentum = self.momentum or 0.0
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1), momentum)
            assert self.num_batches_tracked is not None  # noqa: S101
            self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(images.dtype)


def share_batch_statistics(module: nn.Module) -> None:
    """Let a module's batch normalisations see the whole batch, in place; state stays the same."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum)
            shared.load_state_dict(child.state_dict())
            setattr(module, name, shared.to(child.weight.device))
        else:
            share_batch_statistics(child)
