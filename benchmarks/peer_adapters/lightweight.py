"""lightweight-gan at 32 px with the defaults of its command line, trained by its own `Trainer`.

It insists on a GPU when it is imported and moves everything there; for a CPU, `is_available` says
yes while it is imported, `.cuda()` does nothing and `torch.device` gives the CPU within its module.
It reads images from a folder, so they are written as PNG first. The samples are those of its
trained generator: its average is only begun after 20,000 steps. `--narrow` limits the feature maps
to 64 and takes one batch of 16 a step; its discriminator's attention stays as wide as it is.
"""

import time
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from benchmarks.peer_adapters.adapter import Outcome, Task, package, parameters, run_until
from gan_core.image_grid import save_png

ADAPTATIONS = "the check for CUDA was answered with yes, and .cuda() and torch.device give the CPU"


class TorchOnCpu(SimpleNamespace):
    """The module torch, with a `device` that is always the CPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def import_for_cpu() -> Any:
    """The package's module, which takes this machine for one with a GPU."""
    with mock.patch("torch.cuda.is_available", return_value=True):
        from lightweight_gan import lightweight_gan
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    torch.nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    cpu = torch.device("cpu")
    lightweight_gan.torch = TorchOnCpu(device=lambda *_: cpu)
    return lightweight_gan


def main() -> None:
    task = Task(__doc__)
    lightweight_gan = import_for_cpu()
    pictures = task.folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for index, image in enumerate(task.images.train.images):
        save_png(image, pictures / f"{index:05d}.png")
    batch = {"batch_size": 10, "gradient_accumulate_every": 4, "fmap_max": 512}
    if task.narrow:
        batch = {"batch_size": 16, "gradient_accumulate_every": 1, "fmap_max": 64}
    trainer = lightweight_gan.Trainer(
        base_dir=task.folder,
        image_size=32,
        greyscale=task.images.shape[2] == 1,
        attn_res_layers=[32],
        disc_output_size=1,
        use_aim=False,
        **batch,
    )
    trainer.set_data_src(pictures)

    end = time.monotonic() + task.seconds

    def train() -> None:
        while time.monotonic() < end:
            trainer.train()

    seconds = run_until(task.seconds, train)
    generator = trainer.GAN.G.eval()
    task.deliver(
        lambda part: generator(torch.randn(part.stop - part.start, trainer.latent_dim)) * 2 - 1,
        Outcome(
            package("lightweight-gan"),
            "feature maps up to 64, batch 16, else the defaults of its command line"
            if task.narrow
            else "the defaults of its command line",
            ADAPTATIONS,
            seconds,
            trainer.steps * batch["batch_size"] * batch["gradient_accumulate_every"],
            parameters(trainer.GAN.G),
            parameters(trainer.GAN.D),
        ),
    )


if __name__ == "__main__":
    main()
