"""A training loop in the manner of PyTorch's DCGAN example, for our networks, batch and classes.

As in the example: PIL images through Resize, ToTensor and Normalize in two loader processes; fp32
in the default memory layout; plain Adam; the real and the generated batch judged and propagated
one after the other; binary cross-entropy with the logits; numbers fetched and printed in every
step, and a grid of images every hundred steps. The example has no gradient penalty; `r1_gamma` adds
ours.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import torch
import torchvision
from torch import nn
from torchvision import transforms

from gan_core.data.image_set import ImageSet, ImageSplit
from gan_core.networks import build_discriminator, build_generator
from gan_core.networks.pixels import FlattenPixels, MeanOverPixels
from gan_core.training.job import TrainingJob

WORKERS = 2
LEARNING_RATE, BETAS = 2e-4, (0.5, 0.999)
REAL, FAKE = 1.0, 0.0


class PilImages(torch.utils.data.Dataset):
    """Images as torchvision's data sets give them: one at a time, through PIL."""

    def __init__(self, split: ImageSplit) -> None:
        height, width, channels = split.images.shape[1:]
        self._images = np.array(split.images)
        self._labels = split.labels
        self._transform = transforms.Compose(
            [
                transforms.Resize((height, width)),
                transforms.ToTensor(),
                transforms.Normalize((0.5,) * channels, (0.5,) * channels),
            ]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels = self._images[index]
        picture = PIL.Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        return self._transform(picture), max(0, int(self._labels[index]))


def read_pixels_as_usual(discriminator: nn.Module) -> None:
    """Undo what is made for another memory layout than the example's, and would slow it."""
    layers = discriminator.get_submodule("layers")
    for name, layer in layers.named_children():
        if isinstance(layer, FlattenPixels):
            setattr(layers, name, nn.Flatten())
        elif isinstance(layer, MeanOverPixels):
            setattr(layers, name, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))


def train_like_the_example(
    job: TrainingJob,
    images: ImageSet,
    should_stop: Callable[[], str | None],
    folder: Path,
    r1_gamma: float = 0.0,
) -> None:
    """Train until told to stop; the folder gets the grids and what would be printed."""
    device = torch.device(job.device)
    classes = images.classes if job.network.conditional else 0
    torch.manual_seed(job.training.seed)
    generator = build_generator(job.network, images.shape, classes).to(device)
    discriminator = build_discriminator(job.network, images.shape, classes).to(device)
    read_pixels_as_usual(discriminator)
    generator_optimizer = torch.optim.Adam(generator.parameters(), LEARNING_RATE, BETAS)
    discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), LEARNING_RATE, BETAS)
    criterion = nn.BCEWithLogitsLoss()
    loader = torch.utils.data.DataLoader(
        PilImages(images.train),
        batch_size=job.training.batch_size,
        shuffle=True,
        num_workers=WORKERS,
    )
    step = 0
    with (folder / "printed.txt").open("w") as printed:
        while True:
            for batch in loader:
                if should_stop():
                    return
                real, labels = (tensor.to(device) for tensor in batch)
                count = len(real)

                # The discriminator, on the real batch and then on the generated one.
                discriminator.zero_grad()
                target = torch.full((count,), REAL, device=device)
                real.requires_grad_(r1_gamma > 0)
                logits = discriminator(real, labels)
                real_loss = criterion(logits, target)
                if r1_gamma:
                    (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
                    penalty = slope.square().sum(dim=(1, 2, 3)).mean()
                    (real_loss + 0.5 * r1_gamma * penalty).backward()
                else:
                    real_loss.backward()
                judged_real = logits.sigmoid().mean().item()
                latents = torch.randn(count, job.network.latent_dim, device=device)
                fake = generator(latents, labels)
                target.fill_(FAKE)
                logits = discriminator(fake.detach(), labels)
                fake_loss = criterion(logits, target)
                fake_loss.backward()
                judged_fake = logits.sigmoid().mean().item()
                discriminator_optimizer.step()

                # The generator.
                generator.zero_grad()
                target.fill_(REAL)
                logits = discriminator(fake, labels)
                generator_loss = criterion(logits, target)
                generator_loss.backward()
                judged_after = logits.sigmoid().mean().item()
                generator_optimizer.step()

                loss = (real_loss + fake_loss).item()
                print(
                    f"[{step}] Loss_D: {loss:.4f} Loss_G: {generator_loss.item():.4f} "
                    f"D(x): {judged_real:.4f} D(G(z)): {judged_fake:.4f} / {judged_after:.4f}",
                    file=printed,
                )
                if step % 100 == 0:
                    torchvision.utils.save_image(real, folder / "real.png", normalize=True)
                    torchvision.utils.save_image(fake, folder / "fake.png", normalize=True)
                step += 1
