"""How large networks are, and how much arithmetic an image costs them."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module) -> int:
    """Numbers that are learned."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def flops_per_image(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Floating-point operations of a forward pass in evaluation mode.

    PyTorch counts convolutions and matrix products, a multiply-add as 2 operations; what is done
    element by element, as activations and normalisation are, is not counted.

    Args:
        module: Is left as it is.
        inputs: Of one image, each of shape (1, ...).
    """
    # On the device "meta" tensors have shapes but no values, so that nothing is computed.
    shapes = copy.deepcopy(module).to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        shapes(*(tensor.to("meta") for tensor in inputs))
    return int(counter.get_total_flops())
