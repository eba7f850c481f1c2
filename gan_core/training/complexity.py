"""How large networks are, and how much arithmetic an image costs them."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def count_parameters(module: nn.Module) -> int:
    """Numbers that are learned."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def flops_per_image(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Floating-point operations of a forward pass in evaluation mode.

    Convolutions and matrix products are counted by PyTorch's formulas, a multiply-add as 2
    operations; what is done element by element, as activations and normalisation are, is not.

    Args:
        module: Is left as it is.
        inputs: Of one image, each of shape (1, ...).
    """
    # Their values do not matter, but shapes alone (the device "meta") load PyTorch's compiler.
    apart = copy.deepcopy(module).to_empty(device="cpu").eval()
    with _Counter() as counter:
        apart(*(torch.zeros_like(tensor, device="cpu") for tensor in inputs))
    return counter.flops


class _Counter(TorchDispatchMode):
    """Adds up what is computed below it.

    PyTorch's own `FlopCounterMode` takes apart what it has no formula for, and loads PyTorch's
    compiler to do so, which takes seconds.
    """

    flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the compiler is loaded to be told to stay away

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.flops += int(formula(*args, **(kwargs or {}), out_val=out))
        return out
