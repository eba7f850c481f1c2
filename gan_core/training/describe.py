"""What a training tells of itself, its machine and its networks, and how its grids are drawn."""

import platform
from pathlib import Path
from typing import Any

import torch

from gan_core.disk import write_whole
from gan_core.generator import ReleasedGenerator
from gan_core.image_grid import grid_columns, make_grid, png_bytes
from gan_core.training.complexity import count_parameters, flops_per_image
from gan_core.training.trainer import Trainer

GRID_ROWS = 8


def describe_training(trainer: Trainer) -> dict[str, Any]:
    """What the journal's first line says of the machine and the networks."""
    job, game = trainer.job, trainer.game
    height, width, channels = trainer.config.shape
    device = trainer.device
    label = torch.zeros(1, dtype=torch.int64, device=device)
    latent = torch.zeros(1, job.network.latent_dim, device=device)
    image = torch.zeros(1, channels, height, width, device=device)
    return {
        "device": torch.cuda.get_device_name() if job.device == "cuda" else _processor_name(),
        "precision": job.precision,
        "threads": job.threads,
        "processes": trainer.processes.count,
        "torch": torch.__version__,
        "generator_parameters": count_parameters(game.generator),
        "discriminator_parameters": count_parameters(game.discriminator),
        "generator_flops": flops_per_image(game.generator, latent, label),
        "discriminator_flops": flops_per_image(game.discriminator, image, label),
    }


def draw_grid(generator: ReleasedGenerator, seed: int, file: Path) -> None:
    """Write a grid of samples as PNG: a column for each class, where they are few."""
    classes = generator.config.classes
    columns = grid_columns(64, classes)
    count = columns * GRID_ROWS
    labels = [index % max(classes, 1) for index in range(count)]
    pixels = generator.sample(count, seed=seed, labels=labels)
    write_whole(file, png_bytes(make_grid(pixels, columns)))


def _processor_name() -> str:
    """As Linux names it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
