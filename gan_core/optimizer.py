"""PyTorch's Adam, without PyTorch's compiler.

`torch.optim` wraps an optimiser's methods for `torch.compile`, and the first call of one loads the
whole compiler, which is never used here: as long as loading PyTorch itself takes, and 150 MiB.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch


def without_compiler(method: Callable[..., Any]) -> Any:
    """A method of PyTorch's as it is below the wrappers."""
    return inspect.unwrap(method)


class Adam(torch.optim.Adam):
    """Kingma and Ba (2015), as PyTorch computes it: the same updates, bit for bit."""

    add_param_group = without_compiler(torch.optim.Adam.add_param_group)
    load_state_dict = without_compiler(torch.optim.Adam.load_state_dict)
    state_dict = without_compiler(torch.optim.Adam.state_dict)
    zero_grad = without_compiler(torch.optim.Adam.zero_grad)
    step = torch.no_grad()(without_compiler(torch.optim.Adam.step))
