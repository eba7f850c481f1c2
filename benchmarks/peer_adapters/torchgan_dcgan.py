"""DCGAN of torchgan, trained by its own `Trainer` with the recipe of that class's documentation.

Minimax losses, Adam (0.5, 0.999) at 2e-4, constant, batch 64. `--narrow` takes the documentation's
16 step channels; without it the networks have their default of 64. At the end of every epoch it
calls torchvision's `make_grid` by an argument's former name, which is translated.
"""

import itertools
from typing import Any

import torch
import torchvision.utils
from torchgan.losses import MinimaxDiscriminatorLoss, MinimaxGeneratorLoss
from torchgan.models import DCGANDiscriminator, DCGANGenerator
from torchgan.trainer import Trainer

from benchmarks.peer_adapters.adapter import (
    BATCH_SIZE,
    Outcome,
    Task,
    loader,
    package,
    parameters,
    run_until,
)

EPOCHS = 100_000  # more than there is time for
SIDE = 32
ADAPTATIONS = "torchvision's make_grid was given back its former argument `range`"

make_grid = torchvision.utils.make_grid


def make_grid_as_before(*images: Any, **arguments: Any) -> torch.Tensor:
    """torchvision's, with the argument `range` under the name that it has now."""
    if "range" in arguments:
        arguments["value_range"] = arguments.pop("range")
    return make_grid(*images, **arguments)


def main() -> None:
    task = Task(__doc__)
    torchvision.utils.make_grid = make_grid_as_before
    channels, width = task.images.shape[2], 16 if task.narrow else 64
    adam = {"name": torch.optim.Adam, "args": {"lr": 2e-4, "betas": (0.5, 0.999)}}
    trainer = Trainer(
        {
            "generator": {
                "name": DCGANGenerator,
                "args": {"out_size": SIDE, "out_channels": channels, "step_channels": width},
                "optimizer": adam,
            },
            "discriminator": {
                "name": DCGANDiscriminator,
                "args": {"in_size": SIDE, "in_channels": channels, "step_channels": width},
                "optimizer": adam,
            },
        },
        [MinimaxGeneratorLoss(), MinimaxDiscriminatorLoss()],
        device=torch.device("cpu"),
        epochs=EPOCHS,
        sample_size=64,
        checkpoints=str(task.folder / "model" / "gan"),
        recon=str(task.folder / "recon"),
    )
    batches = loader(task.images, channels)
    steps = itertools.count()
    trainer.train_iter_custom = lambda: next(steps)  # its hook at the start of every step
    seconds = run_until(task.seconds, lambda: trainer(batches))
    generator = trainer.generator.eval()
    task.deliver(
        lambda part: generator(torch.randn(part.stop - part.start, generator.encoding_dims)),
        Outcome(
            package("torchgan"),
            f"DCGAN with {width} step channels, the recipe of its Trainer's documentation",
            ADAPTATIONS,
            seconds,
            next(steps) * BATCH_SIZE,
            parameters(generator),
            parameters(trainer.discriminator),
        ),
    )


if __name__ == "__main__":
    main()
