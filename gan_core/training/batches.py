"""Batches of real images, which stay on the training device as uint8."""

import numpy as np
import torch

from gan_core.data.image_set import ImageSplit
from gan_core.errors import OutOfMemoryError
from gan_core.training.processes import ALONE, Processes


class ImageBatches:
    """Real images in a random order that is a pure function of the seed and of the images shown.

    Args:
        split: The training images.
        seed: Of the order.
        device: Where batches are needed. On the CPU the memory-mapped file itself is read.
        parts: In which a batch is learned from; each holds random images.
        processes: Each gets its own part of every batch.

    Raises:
        OutOfMemoryError: The device's memory does not hold the images.
    """

    def __init__(
        self,
        split: ImageSplit,
        seed: int,
        device: torch.device,
        parts: int = 1,
        processes: Processes = ALONE,
    ) -> None:
        self._images = split.images
        self._resident = None if device.type == "cpu" else _resident(split.images, device)
        labels = np.maximum(split.labels, 0)  # -1 stands for "no label", which networks do not read
        self._labels = torch.tensor(labels, device=device)
        self._seed = seed
        self._device = device
        self._parts = parts
        self._processes = processes
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def __call__(self, images_shown: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """This process's part of the batch that follows after a number of images shown.

        Args:
            images_shown: By all processes.
            count: Images in the whole batch.

        Returns:
            Images, float32, shape (n, channels, height, width), from -1 to 1, channels last;
            labels, int64, shape (n,).
        """
        rows = self._rows(images_shown, count)
        if self._resident is None:
            # The file is read in its order, which may be that of the classes.
            rows = rows.unflatten(0, (self._parts, -1)).sort(dim=1).values.flatten()
            rows = self._processes.own_part(rows, self._parts)
            pixels = torch.from_numpy(self._images[rows.numpy()])
        else:
            rows = self._processes.own_part(rows, self._parts)
            pixels = self._resident[rows]
        images = pixels.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1.0)
        return images, self._labels[rows]

    def _rows(self, images_shown: int, count: int) -> torch.Tensor:
        size = len(self._images)
        parts = []
        while count > 0:
            epoch, position = divmod(images_shown, size)
            if epoch != self._epoch:
                state = np.random.SeedSequence([self._seed, epoch]).generate_state(1)
                stream = torch.Generator().manual_seed(int(state[0]))
                self._order = torch.randperm(size, generator=stream)
                if self._resident is not None:  # from pinned memory, which nobody waits for
                    self._order = self._order.pin_memory().to(self._device, non_blocking=True)
                self._epoch = epoch
            part = self._order[position : position + count]
            parts.append(part)
            images_shown += len(part)
            count -= len(part)
        return torch.cat(parts)


def _resident(images: np.ndarray, device: torch.device) -> torch.Tensor:
    try:
        return torch.tensor(images, device=device)
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"the {len(images)} training images take {images.nbytes / 1e9:.1f} GB, which the GPU's "
            "memory does not hold; choose a smaller data.resolution, or training.device cpu."
        ) from error
