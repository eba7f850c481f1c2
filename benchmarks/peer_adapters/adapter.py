"""What the adapters share: their command line, the end of their time, and what they hand back.

`python -m benchmarks.peer_adapters.<peer> --images FOLDER --seconds S --samples N --folder OUT
--threads T [--narrow]` trains on the images of a prepared set and leaves `samples.npy` (uint8) and
`adapter.json` in OUT.
"""

import argparse
import json
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gan_core.data.image_set import ImageSet, open_image_set

BATCH_SIZE = 64
SAMPLING_BATCH = 100


@dataclass
class Outcome:
    """What a peer did in its time.

    Attributes:
        package: Name and version.
        settings: How it was set up, in one sentence.
        adaptations: What had to be changed to run it, besides settings.
        seconds: Training time.
        images_shown: Real images that its discriminator saw.
    """

    package: str
    settings: str
    adaptations: str
    seconds: float
    images_shown: int
    generator_parameters: int
    discriminator_parameters: int


class Task:
    """What the command line asks for."""

    def __init__(self, documentation: str | None) -> None:
        parser = argparse.ArgumentParser(description=documentation)
        parser.add_argument("--images", type=Path, required=True)
        parser.add_argument("--seconds", type=float, required=True)
        parser.add_argument("--samples", type=int, required=True)
        parser.add_argument("--folder", type=Path, required=True)
        parser.add_argument("--threads", type=int, required=True)
        parser.add_argument("--narrow", action="store_true")
        options = parser.parse_args()
        self.images: ImageSet = open_image_set(options.images)
        self.seconds: float = options.seconds
        self.samples: int = options.samples
        self.folder: Path = options.folder
        self.narrow: bool = options.narrow
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)

    def deliver(self, sample: Callable[[slice], torch.Tensor], outcome: Outcome) -> None:
        """Write samples and outcome.

        Args:
            sample: Makes the images of a slice of the samples, float, shape (n, channels, height,
                width), from -1 to 1; colour for a grey set is averaged.
            outcome: What led to them.
        """
        parts = []
        with torch.no_grad():
            for start in range(0, self.samples, SAMPLING_BATCH):
                images = sample(slice(start, min(start + SAMPLING_BATCH, self.samples)))
                if self.images.shape[2] == 1:
                    images = images.mean(dim=1, keepdim=True)
                pixels = images.add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)
                parts.append(pixels.permute(0, 2, 3, 1).numpy())
        np.save(self.folder / "samples.npy", np.concatenate(parts))
        (self.folder / "adapter.json").write_text(json.dumps(asdict(outcome), indent=2))


class TensorImages(torch.utils.data.Dataset):
    """The training images as float tensors, from -1 to 1, with their labels, one at a time."""

    def __init__(self, images: ImageSet, channels: int) -> None:
        self._images = np.array(images.train.images)
        self._labels = images.train.labels
        self._channels = channels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels = torch.from_numpy(self._images[index]).permute(2, 0, 1)
        image = pixels.to(torch.float32).div(127.5).sub(1.0)
        return image.expand(self._channels, -1, -1), int(self._labels[index])


def loader(images: ImageSet, channels: int) -> torch.utils.data.DataLoader:
    """Batches as the peers' own examples load them, with a process for each thread."""
    return torch.utils.data.DataLoader(
        TensorImages(images, channels),
        batch_size=BATCH_SIZE,
        shuffle=True,
        num_workers=torch.get_num_threads(),
        drop_last=True,
    )


def run_until(seconds: float, work: Callable[[], Any]) -> float:
    """Interrupt the work, as Ctrl-C would, when its time is over; returns the seconds it took."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    start = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return time.perf_counter() - start


def package(name: str) -> str:
    """A package with its version."""
    return f"{name} {version(name)}"


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
