"""SNGAN and cGAN-PD of torch-mimicry at 32 px, trained by its own `Trainer` with its own recipe.

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

from torch_mimicry.nets import cgan_pd, sngan  # noqa: E402
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


def networks(task: Task, *, conditional: bool) -> tuple[Any, Any]:
    share = 4 if task.narrow else 1
    widths = {"ngf": 256 // share}, {"ndf": 128 // share}
    if conditional:
        classes = {"num_classes": task.images.classes}
        return (
            cgan_pd.CGANPDGenerator32(**classes, **widths[0]),
            cgan_pd.CGANPDDiscriminator32(**classes, **widths[1]),
        )
    return sngan.SNGANGenerator32(**widths[0]), sngan.SNGANDiscriminator32(**widths[1])


def trainer(task: Task, steps: int, *, conditional: bool) -> tuple[Any, Any, Counted]:
    generator, discriminator = networks(task, conditional=conditional)
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


def main(*, conditional: bool = False) -> None:
    task = Task(__doc__)
    start = time.perf_counter()
    trainer(task, CALIBRATION_STEPS, conditional=conditional)[0].train()
    steps = int(task.seconds * CALIBRATION_STEPS / (time.perf_counter() - start))
    whole, generator, optimizer = trainer(task, max(1, steps), conditional=conditional)
    seconds = run_until(task.seconds, whole.train)
    labels = task.labels()

    def sample(part: slice) -> torch.Tensor:
        latents = torch.randn(len(labels[part]), generator.nz)
        return generator(latents, labels[part]) if conditional else generator(latents)

    generator.eval()
    task.deliver(
        sample,
        Outcome(
            package("torch-mimicry"),
            f"{'cGAN-PD' if conditional else 'SNGAN'} 32, the README's recipe"
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
