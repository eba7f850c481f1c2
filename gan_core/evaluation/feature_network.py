"""Networks in whose feature space sets of images are compared.

`classifier` is trained on the labelled training split of the pipeline's own images; `random` is the
same network as it was initialised, for images without labels.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import nn

from gan_core.config import FeatureNetworkSettings
from gan_core.data.image_set import ImageSet, ImageSplit
from gan_core.errors import FoundryError

WEIGHTS_FILE = "feature_network.safetensors"
CONFIG_FILE = "feature_network.json"
BATCH_IMAGES = 256
TRAINING_BATCH = 128
PEAK_LEARNING_RATE = 3e-3
SHIFT_SHARE = 16  # training images are shifted by up to a sixteenth of their side


class FeatureNetworkConfig(BaseModel):
    """What a feature network is, and how it came about.

    Attributes:
        kind: `classifier` or `random`.
        feature_dim: Dimensions of the feature space.
        shape: Height and width in pixels, and channels, of its input.
        classes: Classes it tells apart; 0 for `random`.
        trained_on_sha256: Hash of the image set whose training split it learned from.
        held_out_accuracy: Share of held-out images it classifies rightly; None for `random`.
        seed: Of initialisation and training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    feature_dim: int
    shape: tuple[int, int, int]
    classes: int
    trained_on_sha256: str | None
    held_out_accuracy: float | None
    seed: int


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
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.blocks = nn.Sequential(*blocks, nn.Flatten())
        inner = 64 * (shape[0] // 8) * (shape[1] // 8)
        self.features = nn.Sequential(nn.Linear(inner, feature_dim), nn.ReLU())
        self.classify = nn.Linear(feature_dim, max(classes, 1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features, shape (n, feature_dim), and class logits, shape (n, classes)."""
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
        """Hash of the weights."""
        digest = hashlib.sha256()
        for name, value in sorted(self._net.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features and classes of images.

        Args:
            images: uint8, shape (n, height, width, channels).

        Returns:
            float64, shape (n, feature_dim), and the likeliest class, int64, shape (n,).
        """
        parts = [self._net(batch.to(self.device)) for batch in _as_batches(images)]
        features = torch.cat([features for features, _ in parts]).double().cpu().numpy()
        return features, torch.cat([logits.argmax(1) for _, logits in parts]).cpu().numpy()

    def over(self, batches: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Features and classes of images that come in batches."""
        parts = [self(batch) for batch in batches]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def save(self, folder: Path) -> None:
        """Write weights and description."""
        state = {name: value.contiguous() for name, value in self._net.state_dict().items()}
        (folder / WEIGHTS_FILE).write_bytes(safetensors.torch.save(state))
        (folder / CONFIG_FILE).write_text(self.config.model_dump_json(indent=2))

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Read what `save` wrote."""
        config = FeatureNetworkConfig(**json.loads((folder / CONFIG_FILE).read_text()))
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
        FoundryError: A classifier is asked for, but the images have no labels.
    """
    labelled = images.classes > 1
    kind = settings.kind
    if kind == "auto":
        kind = "classifier" if labelled else "random"
    if kind == "classifier" and not labelled:
        raise FoundryError(
            "feature_network.kind is 'classifier', but the images have no classes; sort them into "
            "class folders or use 'random'."
        )
    classes = images.classes if kind == "classifier" else 0
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        net = _Net(images.shape, settings.feature_dim, classes).to(device)
        if kind == "classifier":
            _fit(net, images.train, settings.epochs, settings.seed, torch.device(device))
    config = FeatureNetworkConfig(
        kind=kind,
        feature_dim=settings.feature_dim,
        shape=images.shape,
        classes=classes,
        trained_on_sha256=images.sha256 if kind == "classifier" else None,
        held_out_accuracy=None,
        seed=settings.seed,
    )
    network = FeatureNetwork(net, config, device)
    if kind == "classifier":
        _, found = network(images.held_out.images)
        accuracy = float((found == images.held_out.labels).mean())
        network.config = config.model_copy(update={"held_out_accuracy": accuracy})
    return network


def _fit(net: nn.Module, split: ImageSplit, epochs: int, seed: int, device: torch.device) -> None:
    """Cross-entropy with Adam under a one-cycle learning rate, on randomly shifted images."""
    steps = -(-len(split) // TRAINING_BATCH) * epochs
    optimizer = torch.optim.Adam(net.parameters(), lr=PEAK_LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, steps)
    stream = torch.Generator().manual_seed(seed)
    labels = torch.tensor(split.labels)
    net.train()
    for _ in range(epochs):
        order = torch.randperm(len(split), generator=stream)
        for rows in order.split(TRAINING_BATCH):
            images = _to_float(split.images[rows.numpy()]).to(device)
            _, logits = net(_shift(images, stream))
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


def _to_float(images: np.ndarray) -> torch.Tensor:
    pixels = torch.tensor(images).permute(0, 3, 1, 2)  # a copy: memory-mapped images are read-only
    return pixels.float().div_(127.5).sub_(1.0)


def _as_batches(images: np.ndarray) -> Iterator[torch.Tensor]:
    for start in range(0, len(images), BATCH_IMAGES):
        yield _to_float(images[start : start + BATCH_IMAGES])


def describe_network(config: FeatureNetworkConfig, sha256: str) -> dict[str, Any]:
    """The network's part of a metric card."""
    return {
        "feature_network": config.kind,
        "feature_network_sha256": sha256,
        "feature_dim": config.feature_dim,
        "feature_network_held_out_accuracy": config.held_out_accuracy,
    }
