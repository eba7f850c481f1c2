"""Checkpoints: the whole state of a training in one safetensors file, written atomically."""

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from gan_core.disk import write_whole
from gan_core.errors import ForeignCheckpointError
from gan_core.training.alarms import Watch

# Why a training is over.
BUDGET, PLATEAU, ALARM = "budget", "plateau", "alarm"


class Progress(BaseModel):
    """Where a training stands.

    Attributes:
        job_fingerprint: Of the job that this belongs to.
        budgets_images: The budget, in images; before it those that it was raised from.
        images: Real images shown.
        seconds: Training time so far, over all attempts.
        journal_bytes: Length of the journal when the checkpoint was written.
        steps_since_line: Steps summed up for the next journal line.
        rate_factor: What roll-backs have made of the learning rates.
        watch: What earlier evaluations found.
        finished: `BUDGET`, `PLATEAU` or `ALARM`, if the training is over.
        evaluation_is_due: Whether the last step's evaluation was cut off, and is to come.
        is_at_snapshot: Whether it has just returned to its best snapshot.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_fingerprint: str
    budgets_images: tuple[int, ...] = ()
    images: int = 0
    seconds: float = 0.0
    journal_bytes: int = 0
    steps_since_line: int = 0
    rate_factor: float = 1.0
    watch: Watch = Watch()
    finished: str | None = None
    evaluation_is_due: bool = False
    is_at_snapshot: bool = False


def save_checkpoint(path: Path, tensors: Mapping[str, torch.Tensor], progress: Progress) -> None:
    """Write a checkpoint; at every instant the file is the old one or the new one, whole."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, safetensors.torch.save(whole, {"progress": progress.model_dump_json()}))


def read_progress(path: Path) -> Progress | None:
    """Where the checkpoint stands, or None if there is none; tensors are not read.

    Raises:
        ForeignCheckpointError: It is damaged, or of another version of this program.
    """
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            return Progress.model_validate_json((file.metadata() or {}).get("progress", ""))
    except (safetensors.SafetensorError, ValidationError) as error:
        raise ForeignCheckpointError(
            f"{path} is damaged or of another version of this program ({type(error).__name__}); "
            f"go back to that one, or remove {path.parent} to train anew."
        ) from error


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors, on the CPU."""
    return safetensors.torch.load_file(path)


def module_tensors(prefix: str, module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's parameters and buffers under a prefix."""
    return {f"{prefix}/{name}": value for name, value in module.state_dict().items()}


def module_file(prefix: str, tensors: Mapping[str, torch.Tensor]) -> bytes:
    """What `module_tensors` took, without the prefix, as a safetensors file."""
    below = _below(prefix, tensors)
    return safetensors.torch.save(
        {name: t.detach().cpu().contiguous() for name, t in below.items()}
    )


def restore_module(prefix: str, module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what `module_tensors` took."""
    module.load_state_dict(_below(prefix, tensors))


def optimizer_tensors(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimiser's state under a prefix."""
    states = optimizer.state_dict()["state"]
    return {f"{prefix}/{i}/{key}": v for i, state in states.items() for key, v in state.items()}


def restore_optimizer(
    prefix: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Put back what `optimizer_tensors` took, in the memory layout of the parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    kept = _below(prefix, tensors)
    for index, parameter in enumerate(parameters):
        # What was taken before the first update has nothing, and means zeros.
        for field, value in optimizer.state.get(parameter, {}).items():
            if f"{index}/{field}" not in kept:
                value.zero_()
    for name, value in kept.items():
        number, _, key = name.partition("/")
        parameter = parameters[int(number)]
        state = optimizer.state[parameter]
        if key not in state:
            # The file holds every tensor contiguous; the fused kernel wants the parameter's layout.
            like = parameter if value.shape == parameter.shape else value.to(parameter.device)
            state[key] = torch.empty_like(like, dtype=value.dtype)
        state[key].copy_(value)  # where it lies: a CUDA graph may read it there


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    cut = len(prefix) + 1
    return {name[cut:]: value for name, value in tensors.items() if name.startswith(prefix + "/")}
