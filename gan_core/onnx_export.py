"""The generator as an ONNX model, for programs without PyTorch; tried before it is handed over."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gan_core.errors import FoundryError
from gan_core.generator import ReleasedGenerator

MOST_DIFFERENCE = 1e-4  # of outputs from -1 to 1; a pixel level is 8e-3
TRIED = (1, 5, 32)  # batch sizes


def export_onnx(generator: ReleasedGenerator, path: Path) -> float:
    """Write a generator as ONNX, and compare it with PyTorch in onnxruntime.

    Inputs are `latents`, float32, shape (n, latent_dim), and with classes `labels`, int64, shape
    (n,); the output is `images`, float32, shape (n, channels, height, width), from -1 to 1. Pixels
    are round(127.5 * images + 127.5).

    Returns:
        The largest difference that was seen.

    Raises:
        FoundryError: The `onnx` extra is not installed, or the model computes other images.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # the exporter needs it
    except ImportError as error:
        raise FoundryError(
            f"an ONNX export needs {error.name}, which is not installed; pip install "
            "'gan-foundry[onnx]'."
        ) from error
    conditional = generator.config.classes > 0
    module = _ByInputs(generator.module, conditional=conditional).eval()
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            module,
            _inputs(generator, 2),
            input_names=["latents", "labels"][: 1 + conditional],
            output_names=["images"],
            dynamic_shapes=({0: batch},) * (1 + conditional),
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # noqa: S101  # with dynamo it is a program
    program.save(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    most = max(_difference(session, module, generator, count) for count in TRIED)
    if not most <= MOST_DIFFERENCE:
        raise FoundryError(
            f"the ONNX model computes other images than PyTorch (up to {most:.2g} of 2 apart); "
            "please report it with the versions of torch and onnxruntime."
        )
    return most


class _ByInputs(nn.Module):
    """A generator with as many inputs as it reads."""

    def __init__(self, module: nn.Module, *, conditional: bool) -> None:
        super().__init__()
        self.module = module
        self.conditional = conditional

    def forward(self, latents: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        if labels is None:
            labels = latents.new_zeros(latents.shape[0], dtype=torch.int64)
        images: torch.Tensor = self.module(latents, labels)
        return images.float()


def _inputs(generator: ReleasedGenerator, count: int) -> tuple[torch.Tensor, ...]:
    stream = torch.Generator().manual_seed(count)
    latents = torch.randn(count, generator.config.network.latent_dim, generator=stream)
    classes = generator.config.classes
    return (latents, torch.arange(count) % classes) if classes else (latents,)


def _difference(
    session: Any,
    module: nn.Module,
    generator: ReleasedGenerator,
    count: int,
) -> float:
    inputs = _inputs(generator, count)
    with torch.inference_mode():
        expected = module(*inputs).numpy()
    names = [item.name for item in session.get_inputs()]
    (found,) = session.run(
        ["images"], {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    )
    return float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
