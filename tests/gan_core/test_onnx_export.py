"""The generator in another runtime."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from gan_core import onnx_export
from gan_core.config import NetworkSettings
from gan_core.errors import FoundryError
from gan_core.generator import GeneratorConfig, ReleasedGenerator, to_uint8
from gan_core.networks import build_generator
from gan_core.onnx_export import export_onnx

MakeGenerator = Callable[..., ReleasedGenerator]


@pytest.mark.parametrize("family", ["dcgan", "resnet"])
@pytest.mark.parametrize("conditional", [True, False])
def test_onnxruntime_makes_the_images_of_pytorch(
    family: str, conditional: bool, tmp_path: Path
) -> None:
    network = NetworkSettings.model_validate(
        {"family": family, "latent_dim": 8, "generator_channels": (8, 4)}
        | {"discriminator_channels": (4, 8), "conditional": conditional}
    )
    config = GeneratorConfig(
        pipeline="tiny",
        network=network,
        height=8,
        width=12,
        channels=3,
        class_names=("a", "b"),
        class_counts=(1, 1),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build_generator(network, config.shape, config.classes)
    generator = ReleasedGenerator(module, config, "cpu")
    path = tmp_path / "generator.onnx"
    assert export_onnx(generator, path) < 1e-4
    session = onnxruntime.InferenceSession(str(path))
    latents = torch.randn(7, 8, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(7) % 2
    inputs = {"latents": latents.numpy()} | ({"labels": labels.numpy()} if conditional else {})
    (outputs,) = session.run(["images"], inputs)
    expected = generator.images(latents, labels)
    found = to_uint8(torch.from_numpy(outputs)).numpy()
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_model_that_computes_other_images_is_refused(
    make_generator: MakeGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "MOST_DIFFERENCE", -1.0)
    with pytest.raises(FoundryError, match="the ONNX model computes other images than PyTorch"):
        export_onnx(make_generator(), tmp_path / "generator.onnx")


def test_without_the_extra_the_sentence_says_what_to_install(
    make_generator: MakeGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(FoundryError, match=r"needs onnxruntime, which is not installed; pip insta"):
        export_onnx(make_generator(), tmp_path / "generator.onnx")
    assert not (tmp_path / "generator.onnx").exists()
