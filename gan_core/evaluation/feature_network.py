"""Networks in whose feature space sets of images are compared.

`classifier` is trained on the labelled training split of the pipeline's own images; `random` is the
same network as it was initialised, which knows nothing of any domain, in the manner of R64 (Naeem
et al. 2020); `inception` is the network of the published FID numbers (`inception.py`).
"""

import itertools
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from gan_core.data.image_set import ImageSet, ImageSplit
from gan_core.errors import FoundryError
from gan_core.evaluation.inception import InceptionNet
from gan_core.evaluation.inception_weights import find_weights
from gan_core.evaluation.network_config import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    FeatureNetworkConfig,
    hash_weights,
)
from gan_core.evaluation_settings import FeatureNetworkSettings
from gan_core.optimizer import Adam

INCEPTION_WEIGHTS_FILE = "inception.pth"
CPU_BATCH_IMAGES = 256  # larger ones leave the processor's cache and are slower
CPU_BATCH_PIXELS = CPU_BATCH_IMAGES * 128 * 128  # of larger images so many less, for the memory
GPU_BATCH_IMAGES = 8192  # halved until it fits
TRAINING_BATCH = 128
PEAK_LEARNING_RATE = 3e-3
SHIFT_SHARE = 16  # training images are shifted by up to a sixteenth of their side


@dataclass(frozen=True)
class Features:
    """What a feature network sees in images.

    Attributes:
        vectors: float64, shape (n, feature_dim).
        logits: float32, shape (n, k): the network's scores of its own k classes; k is 0 if it has
            none.
    """

    vectors: np.ndarray
    logits: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Those of several batches, in their order."""
        return cls(
            np.concatenate([part.vectors for part in parts]),
            np.concatenate([part.logits for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def classes(self) -> np.ndarray:
        """The likeliest class of each image, int64, shape (n,)."""
        found: np.ndarray = self.logits.argmax(1)
        return found


class _Net(nn.Module):
    """Three convolutional blocks and two linear layers; features are the inputs of the last."""

    def __init__(self, shape: tuple[int, int, int], feature_dim: int, classes: int) -> None:
        super().__init__()
        widths = (shape[2], 16, 32, 64)
        blocks: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(widths):
            blocks += [
                nn.Conv2d(narrow, wide, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.MaxPool2d(2),  # before the ReLU it gives the same, and leaves it a quarter
                nn.ReLU(),
            ]
        self.blocks = nn.Sequential(*blocks, nn.Flatten())
        inner = 64 * (shape[0] // 8) * (shape[1] // 8)
        self.features = nn.Sequential(nn.Linear(inner, feature_dim), nn.ReLU())
        self.classify = nn.Linear(feature_dim, max(classes, 1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features, shape (n, feature_dim), and class logits, shape (n, classes).

        Args:
            images: uint8, shape (n, channels, height, width).
        """
        return self.judge(_to_float(images))

    def judge(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of float images from -1 to 1."""
        features = self.features(self.blocks(images))
        return features, self.classify(features)


class FeatureNetwork:
    """A fixed network that maps uint8 images to features and, if it is a classifier, to classes."""

    def __init__(self, net: nn.Module, config: FeatureNetworkConfig, device: str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self._net = net.eval().requires_grad_(False).to(self.device)

    @property
    def sha256(self) -> str:
        """Hash of the weights; of their published file, where there is one."""
        if self.config.weights_sha256:
            return self.config.weights_sha256
        state = self._net.state_dict()
        return hash_weights({name: value.cpu().numpy() for name, value in state.items()})

    def __call__(self, images: np.ndarray) -> Features:
        """Features of images, computed in fp32 whatever the machine offers.

        Args:
            images: uint8, shape (n, height, width, channels).
        """
        size = GPU_BATCH_IMAGES
        if self.device.type == "cpu":
            pixels = images.shape[1] * images.shape[2]
            size = max(1, min(CPU_BATCH_IMAGES, CPU_BATCH_PIXELS // pixels))
        parts: list[Features] = []
        start = 0
        while start < len(images) or not parts:
            try:
                parts.append(self._batch(images[start : start + size]))
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size //= 2
            else:
                start += size
        return Features.joined(parts)

    @torch.inference_mode()
    def _batch(self, images: np.ndarray) -> Features:
        # A copy: memory-mapped images are read-only.
        pixels = torch.tensor(images).to(self.device).permute(0, 3, 1, 2)
        with (
            torch.autocast(self.device.type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
        ):
            vectors, logits = self._net(pixels)
        if self.config.kind == "random":
            logits = logits[:, :0]  # of no class
        return Features(vectors.double().cpu().numpy(), logits.float().cpu().numpy())

    def over(self, batches: Iterable[np.ndarray]) -> Features:
        """Features of images that come in batches."""
        return Features.joined([self(batch) for batch in batches])

    def save(self, folder: Path) -> None:
        """Write weights and description."""
        if isinstance(self._net, InceptionNet):
            shutil.copyfile(self._net.weights_file, folder / INCEPTION_WEIGHTS_FILE)
        else:
            state = {name: value.contiguous() for name, value in self._net.state_dict().items()}
            (folder / WEIGHTS_FILE).write_bytes(safetensors.torch.save(state))
        (folder / CONFIG_FILE).write_text(self.config.model_dump_json(indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Read what `save` wrote."""
        config = FeatureNetworkConfig.read(folder)
        net: nn.Module
        if config.kind == "inception":
            assert config.weights_sha256 is not None  # noqa: S101
            net = InceptionNet(folder / INCEPTION_WEIGHTS_FILE, config.weights_sha256)
        else:
            net = _Net(config.shape, config.feature_dim, config.classes)
            net.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS_FILE))
        return cls(net, config, device)


def make_feature_network(
    images: ImageSet, settings: FeatureNetworkSettings, device: str = "cpu"
) -> FeatureNetwork:
    """The feature network that the settings ask for.

    A classifier learns from the training split alone; the held-out split only measures its
    accuracy.

    Raises:
        FoundryError: A classifier is asked for, but the images have no labels; or the weights of
            the Inception network cannot be had.
    """
    labelled = images.classes > 1
    kind = settings.kind
    if kind == "auto":
        kind = "classifier" if labelled else "random"
    if kind == "random":
        return random_network(images.shape, settings.feature_dim, settings.seed, device)
    if kind == "inception":
        return _inception_network(images.shape, settings, device)
    if not labelled:
        raise FoundryError(
            "feature_network.kind is 'classifier', but the images have no classes; sort them into "
            "class folders or use 'random'."
        )
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        net = _Net(images.shape, settings.feature_dim, images.classes).to(device)
        _fit(net, images.train, settings.epochs, settings.seed, torch.device(device))
    config = FeatureNetworkConfig(
        kind=kind,
        feature_dim=settings.feature_dim,
        shape=images.shape,
        classes=images.classes,
        trained_on_sha256=images.sha256,
        held_out_accuracy=None,
        seed=settings.seed,
    )
    network = FeatureNetwork(net, config, device)
    found = network(images.held_out.images).classes
    accuracy = float((found == images.held_out.labels).mean())
    network.config = config.model_copy(update={"held_out_accuracy": accuracy})
    return network


def random_network(
    shape: tuple[int, int, int], feature_dim: int, seed: int, device: str = "cpu"
) -> FeatureNetwork:
    """A network as it is initialised, the same bits for the same arguments.

    The initialisation (He et al. 2015) keeps the variance from layer to layer, so that distances
    are of the order of one.

    Args:
        shape: Height and width in pixels, and channels, of the images.
        feature_dim: Dimensions of the feature space.
        seed: Of the initialisation.
        device: Where to compute.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = _Net(shape, feature_dim, 0)
        for layer in net.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight)
    config = FeatureNetworkConfig(
        kind="random",
        feature_dim=feature_dim,
        shape=shape,
        classes=0,
        trained_on_sha256=None,
        held_out_accuracy=None,
        seed=seed,
    )
    return FeatureNetwork(net, config, device)


def _inception_network(
    shape: tuple[int, int, int], settings: FeatureNetworkSettings, device: str
) -> FeatureNetwork:
    net = InceptionNet(
        find_weights(settings.weights, settings.weights_sha256), settings.weights_sha256
    )
    config = FeatureNetworkConfig(
        kind="inception",
        feature_dim=net.FEATURE_DIM,
        shape=shape,
        classes=0,
        trained_on_sha256=None,
        held_out_accuracy=None,
        seed=None,
        weights_sha256=settings.weights_sha256,
        resize=net.RESIZE,
    )
    return FeatureNetwork(net, config, device)


def _fit(net: _Net, split: ImageSplit, epochs: int, seed: int, device: torch.device) -> None:
    """Cross-entropy with Adam under a one-cycle learning rate, on randomly shifted images."""
    steps = -(-len(split) // TRAINING_BATCH) * epochs
    optimizer = Adam(net.parameters(), lr=PEAK_LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, steps)
    stream = torch.Generator().manual_seed(seed)
    labels = torch.tensor(split.labels)
    net.train()
    for _ in range(epochs):
        order = torch.randperm(len(split), generator=stream)
        for rows in order.split(TRAINING_BATCH):
            pixels = torch.tensor(split.images[rows.numpy()]).permute(0, 3, 1, 2)
            images = _to_float(pixels).to(device)
            _, logits = net.judge(_shift(images, stream))
            loss = F.cross_entropy(logits, labels[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _shift(images: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
    """The whole batch moved by the same few pixels, its edges repeated."""
    height, width = images.shape[2:]
    most_y, most_x = max(1, height // SHIFT_SHARE), max(1, width // SHIFT_SHARE)
    padded = F.pad(images, (most_x, most_x, most_y, most_y), mode="replicate")
    top = int(torch.randint(0, 2 * most_y + 1, (), generator=stream))
    left = int(torch.randint(0, 2 * most_x + 1, (), generator=stream))
    return padded[:, :, top : top + height, left : left + width]


def _to_float(images: torch.Tensor) -> torch.Tensor:
    """Pixels from 0 to 255 as numbers from -1 to 1."""
    return images.float().div_(127.5).sub_(1.0)
