"""SNGAN of torch-mimicry at 32 px, trained by its own `Trainer` with its own recipe.

The recipe is that of its README for SNGAN on CIFAR-10: batch 64, five discriminator steps for one
of the generator, Adam (0, 0.9) at 2e-4 with linear decay to the end. `--narrow` takes a quarter of
the networks' channels. Its networks make colour images; grey ones are shown three times.
"""

import shutil
import sys
import time
import types
from typing import Any

import torch

from benchmarks.peer_adapters.adapter import (
    BATCH_SIZE,
    Outcome,
    Task,
    loader,
    package,
    parameters,
    run_until,
)

# Neither is used by training; one imports TensorFlow, the other `torch._six`, which torch removed.
for unused in ("torch_mimicry.metrics", "torch_mimicry.datasets"):
    sys.modules[unused] = types.ModuleType(unused)

from torch_mimicry.nets import sngan  # noqa: E402
from torch_mimicry.training import Trainer  # noqa: E402

DISCRIMINATOR_STEPS = 5
CALIBRATION_STEPS = 3
ADAPTATIONS = "its subpackages metrics and datasets, unused here, were replaced by empty modules"


class Counted(torch.optim.Adam):
    """Adam that counts its steps."""

    steps = 0

    def step(self, closure: Any = None) -> Any:
        self.steps += 1
        return super().step(closure)


def trainer(task: Task, steps: int) -> tuple[Any, Any, Counted]:
    share = 4 if task.narrow else 1
    generator = sngan.SNGANGenerator32(ngf=256 // share)
    discriminator = sngan.SNGANDiscriminator32(ndf=128 // share)
    optimizers = [
        Counted(network.parameters(), 2e-4, betas=(0.0, 0.9))
        for network in (generator, discriminator)
    ]
    logs = task.folder / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    whole = Trainer(
        netD=discriminator,
        netG=generator,
        optD=optimizers[1],
        optG=optimizers[0],
        n_dis=DISCRIMINATOR_STEPS,
        num_steps=steps,
        lr_decay="linear",
        dataloader=loader(task.images, channels=3),
        log_dir=str(logs),
        device=torch.device("cpu"),
    )
    return whole, generator, optimizers[1]


def step_seconds(task: Task) -> float:
    """The time of a step, without what the beginning of a training takes."""
    taken = []
    for steps in (1, 1 + CALIBRATION_STEPS):
        calibration, *_ = trainer(task, steps)
        start = time.perf_counter()
        calibration.train()
        taken.append(time.perf_counter() - start)
    return (taken[1] - taken[0]) / CALIBRATION_STEPS


def main() -> None:
    task = Task(__doc__)
    steps = int(task.seconds / step_seconds(task))
    whole, generator, optimizer = trainer(task, max(1, steps))
    seconds = run_until(task.seconds, whole.train)

    def sample(part: slice) -> torch.Tensor:
        return generator(torch.randn(part.stop - part.start, generator.nz))

    generator.eval()
    task.deliver(
        sample,
        Outcome(
            package("torch-mimicry"),
            "SNGAN 32, the README's recipe"
            + (", a quarter of the channels" if task.narrow else ""),
            ADAPTATIONS,
            seconds,
            optimizer.steps * BATCH_SIZE,
            parameters(generator),
            parameters(whole.netD),
        ),
    )


if __name__ == "__main__":
    main()
