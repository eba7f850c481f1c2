"""What the tests of the learning part share."""

from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import torch

from gan_core.config import NetworkSettings
from gan_core.data.image_set import ImageSet, open_image_set
from gan_core.generator import GeneratorConfig, ReleasedGenerator
from gan_core.networks import build_generator

# Machines that run tests are shared: a slow example is not a failing one.
hypothesis.settings.register_profile("shared_machine", deadline=None, max_examples=40)
hypothesis.settings.load_profile("shared_machine")


@pytest.fixture(scope="session")
def digit_images(digits: Path) -> ImageSet:
    """The prepared digits, opened."""
    return open_image_set(digits)


@pytest.fixture(scope="session")
def make_generator() -> Callable[..., ReleasedGenerator]:
    """Makes generators of 16x16 grey images as they are before training."""

    def make(*, conditional: bool = True, classes: int = 10, seed: int = 0) -> ReleasedGenerator:
        network = NetworkSettings(
            latent_dim=16, generator_channels=(16, 8, 8), conditional=conditional
        )
        config = GeneratorConfig(
            pipeline="digits",
            network=network,
            height=16,
            width=16,
            channels=1,
            class_names=tuple(str(label) for label in range(classes)),
            class_counts=tuple(range(1, classes + 1)),
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = build_generator(network, config.shape, config.classes)
        return ReleasedGenerator(module, config, "cpu")

    return make
