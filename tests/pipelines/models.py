"""Released and registered models, for tests of what is registered and of what moves it."""

from pathlib import Path

import torch
from mlflow import MlflowClient

from gan_core.config import NetworkSettings, PipelineSettings
from gan_core.generator import GeneratorConfig, ReleasedGenerator
from gan_core.networks import build_generator
from pipelines import tracking
from pipelines.registry import BLESSED_TAG

MODEL = "tiny"
SETTINGS = PipelineSettings.model_validate({"data": {"source": "digits", "resolution": 16}})
CARD = "# tiny\n\nA generator of nothing.\n"


def register_versions(count: int, *, blessed: bool = True) -> MlflowClient:
    """A model with versions 1 to `count` without files, none with an alias."""
    client = tracking.connect()
    client.create_registered_model(MODEL)
    tags = {BLESSED_TAG: "2026-01-01T00:00:00+00:00"} if blessed else {}
    for _ in range(count):
        client.create_model_version(MODEL, "runs:/none/generator", tags=tags)
    return client


def release_generator(folder: Path, classes: int = 2, seed: int = 0) -> Path:
    """Write a released generator with random weights."""
    network = NetworkSettings(
        latent_dim=4,
        generator_channels=(8, 4),
        discriminator_channels=(4, 8),
        conditional=classes > 0,
    )
    config = GeneratorConfig(
        pipeline="tiny",
        network=network,
        height=8,
        width=12,
        channels=3,
        class_names=tuple(f"class {index}" for index in range(classes)),
        class_counts=(10,) * classes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build_generator(network, config.shape, config.classes)
    folder.mkdir(parents=True)
    ReleasedGenerator(module, config, "cpu").save(folder)
    return folder
