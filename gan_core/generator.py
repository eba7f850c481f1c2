"""What is released: weights as safetensors beside `config.json`, and how to sample them.

A copy of this module, of `networks/` and of the settings travels inside every registered model,
hence the relative imports; nothing here may import the rest of the package.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError

from .config import NetworkSettings
from .errors import FoundryError, UnreadableGeneratorError, first_line
from .networks import build_generator
from .released_files import CONFIG_FILE, WEIGHTS_FILE

REGISTERED_FOLDER = "data/generator"  # where MLflow puts them within a registered model

# Images are always computed in groups of this size, and the last group is filled up: a convolution
# may round differently for another batch size; the same seed would then not mean the same image.
GROUP = 32


class GeneratorConfig(BaseModel):
    """All that is needed to rebuild a generator; the content of `config.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = 1
    pipeline: str
    network: NetworkSettings
    height: int
    width: int
    channels: int
    class_names: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height and width in pixels, and channels."""
        return self.height, self.width, self.channels

    @property
    def classes(self) -> int:
        """Number of classes the generator is conditioned on; 0 for none."""
        return len(self.class_names) if self.network.conditional else 0


@dataclass(frozen=True)
class Samples:
    """Generated images with what reproduces them.

    Attributes:
        images: uint8, shape (n, height, width, channels).
        latents: float32, shape (n, latent_dim), after truncation.
        labels: int64, shape (n,); -1 for an unconditional generator.
        seed: What the latents (and labels, where none were asked for) were drawn from.
    """

    images: np.ndarray
    latents: np.ndarray
    labels: np.ndarray
    seed: int


class ReleasedGenerator:
    """A trained generator, ready to sample.

    The image at an index depends on the seed, the index, its label and the truncation alone: not on
    how many are asked for.

    Args:
        module: The network with its trained weights.
        config: Its description.
        device: Where to compute.
    """

    def __init__(self, module: torch.nn.Module, config: GeneratorConfig, device: str) -> None:
        self.config = config
        self.device = torch.device(device)
        self._module = module.eval().requires_grad_(False).to(self.device)

    @property
    def module(self) -> torch.nn.Module:
        """The network: latents and labels in, float images from -1 to 1 out."""
        return self._module

    def sample(
        self,
        count: int,
        *,
        seed: int = 0,
        labels: Sequence[int] | np.ndarray | None = None,
        truncation: float = 1.0,
    ) -> np.ndarray:
        """Generate images.

        Args:
            count: How many.
            seed: From 0 to 2^63 - 1; the same seed gives the same images. PyTorch's generator of
                latents takes the last 32 bits of it.
            labels: One class a image, shape (count,); by default drawn with the classes'
                frequencies in the training data. Not read by an unconditional generator.
            truncation: Above 0, up to 1; latents are multiplied by it.

        Returns:
            uint8, shape (count, height, width, channels).

        Raises:
            FoundryError: An argument is out of its range.
        """
        batches = self.sample_batches(count, seed=seed, labels=labels, truncation=truncation)
        images = np.empty((count, *self.config.shape), np.uint8)
        filled = 0
        for batch in batches:
            images[filled : filled + len(batch.images)] = batch.images
            filled += len(batch.images)
        return images

    def sample_batches(
        self,
        count: int,
        *,
        seed: int = 0,
        labels: Sequence[int] | np.ndarray | None = None,
        truncation: float = 1.0,
    ) -> Iterator[Samples]:
        """Generate the images of `sample` in batches of bounded memory, with latents and labels."""
        check_sampling_arguments(count, seed, truncation)
        given = None if labels is None else self.check_labels(labels, count)
        return self._batches(count, int(seed), given, float(truncation))

    def _batches(
        self, count: int, seed: int, given: np.ndarray | None, truncation: float
    ) -> Iterator[Samples]:
        for latents, labels, size in self._inputs(count, seed, given, truncation):
            images = self.images(latents, torch.from_numpy(labels))
            yield Samples(
                images[:size],
                latents[:size].numpy(),
                labels[:size] if self.config.classes else np.full(size, -1),
                seed,
            )

    def _inputs(
        self, count: int, seed: int, given: np.ndarray | None, truncation: float
    ) -> Iterator[tuple[torch.Tensor, np.ndarray, int]]:
        """Latents and labels of each group, and how many of them are wanted."""
        # Two streams, so that asking for labels does not change the latents.
        latent_stream = torch.Generator().manual_seed(seed)
        label_stream = np.random.default_rng(seed)
        for start in range(0, count, GROUP):
            size = min(GROUP, count - start)
            latents = torch.randn(GROUP, self.config.network.latent_dim, generator=latent_stream)
            group_labels = self._draw_labels(label_stream)
            if given is not None:
                group_labels[:size] = given[start : start + size]
            yield latents * truncation, group_labels, size

    def output_batches(
        self, count: int, *, seed: int = 0, labels: Sequence[int] | np.ndarray | None = None
    ) -> Iterator[torch.Tensor]:
        """The images of `sample` before they are rounded: float, shape (n, channels, h, w)."""
        check_sampling_arguments(count, seed, 1.0)
        given = None if labels is None else self.check_labels(labels, count)
        for latents, group_labels, size in self._inputs(count, seed, given, 1.0):
            yield self._outputs(latents, torch.from_numpy(group_labels))[:size]

    def images(self, latents: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
        """Images of given latents.

        Args:
            latents: float, shape (n, latent_dim).
            labels: int64, shape (n,).

        Returns:
            uint8, shape (n, height, width, channels).
        """
        return to_uint8(self._outputs(latents, labels)).cpu().numpy()

    @torch.inference_mode()
    def _outputs(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self._module(latents.to(self.device), labels.to(self.device))
        return outputs

    def check_labels(self, labels: Sequence[int] | np.ndarray, count: int) -> np.ndarray:
        """The labels as int64, shape (count,).

        Raises:
            FoundryError: They are not `count` integers, or lie outside the classes.
        """
        array = np.asarray(labels)
        if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
            raise FoundryError(
                f"labels have shape {array.shape} and type {array.dtype}, but {count} integers "
                "are needed, one a image."
            )
        classes = self.config.classes
        if not classes:
            return np.zeros(count, np.int64)
        outside = array[(array < 0) | (array >= classes)]
        if len(outside):
            raise FoundryError(
                f"the label {outside[0]} is outside the {classes} classes of "
                f"{self.config.pipeline}; use 0 to {classes - 1}."
            )
        return array.astype(np.int64)

    def _draw_labels(self, stream: np.random.Generator) -> np.ndarray:
        if not self.config.classes:
            return np.zeros(GROUP, np.int64)
        counts = np.asarray(self.config.class_counts, float)
        return stream.choice(self.config.classes, GROUP, p=counts / counts.sum()).astype(np.int64)

    def save(self, folder: Path) -> None:
        """Write `generator.safetensors` and `config.json`."""
        state = {name: value.contiguous() for name, value in self._module.state_dict().items()}
        (folder / WEIGHTS_FILE).write_bytes(safetensors.torch.save(state))
        (folder / CONFIG_FILE).write_text(self.config.model_dump_json(indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", called: str | None = None) -> Self:
        """Read what `save` wrote.

        Args:
            folder: Where it is.
            device: Where to compute.
            called: What an error calls it; by default the folder.

        Raises:
            UnreadableGeneratorError: The folder does not hold a released generator, or one that is
                damaged or of another version of the project.
        """
        called = called or str(folder)
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            if not (folder / name).exists():
                raise UnreadableGeneratorError(
                    f"{called} is not a released generator: {name} is missing; it needs "
                    f"{WEIGHTS_FILE} and {CONFIG_FILE}."
                )
        try:
            config = GeneratorConfig.model_validate_json((folder / CONFIG_FILE).read_bytes())
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(map(str, (CONFIG_FILE, *problem["loc"])))
            raise UnreadableGeneratorError(
                f"{called} cannot be loaded ({place}: {problem['msg']}); load it with the version "
                "of the project that wrote it."
            ) from error
        module = build_generator(config.network, config.shape, config.classes)
        try:
            module.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS_FILE))
        except (SafetensorError, RuntimeError) as error:
            reason = first_line(error).rstrip(":")
            raise UnreadableGeneratorError(
                f"{called} cannot be loaded ({WEIGHTS_FILE}: {reason}); get it anew, or load it "
                "with the version of the project that wrote it."
            ) from error
        return cls(module, config, device)


def load_generator(model: str | Path, device: str = "cpu") -> ReleasedGenerator:
    """Load a generator from MLflow's registry or from a folder.

    Args:
        model: `models:/<name>@<alias>`, `models:/<name>/<version>`, or a folder. The registry is
            the one of MLflow's tracking URI (`MLFLOW_TRACKING_URI`).
        device: Where to compute: `cpu`, `cuda`, …

    Raises:
        UnreadableGeneratorError: As `ReleasedGenerator.load`.
        FoundryError: There is no such model, or no registry.
    """
    if not str(model).startswith("models:/"):
        return ReleasedGenerator.load(Path(model), device)
    # A server that is down otherwise blocks the call for four minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    import mlflow
    from mlflow.exceptions import MlflowException

    if not mlflow.is_tracking_uri_set():
        raise FoundryError(
            f"{model} cannot be found without a registry: set MLFLOW_TRACKING_URI to the address "
            "that `gan-foundry doctor` prints."
        )
    with tempfile.TemporaryDirectory() as temporary:  # MLflow's own would stay
        try:
            found = Path(mlflow.artifacts.download_artifacts(str(model), dst_path=temporary))
            if not any(found.iterdir()):
                raise FileNotFoundError("it has no files")
        except (MlflowException, OSError) as error:
            raise FoundryError(
                f"{model} could not be had from the registry at {mlflow.get_registry_uri()} "
                f"({first_line(error)}); `gan-foundry models` lists what is there."
            ) from error
        return ReleasedGenerator.load(found / REGISTERED_FOLDER, device, str(model))


def check_sampling_arguments(count: int, seed: int, truncation: float) -> None:
    """Raise FoundryError for a count, seed or truncation out of its range."""
    if count < 1:
        raise FoundryError(f"the number of images is {count}, but it must be at least 1.")
    if not 0 <= seed < 2**63:
        raise FoundryError(f"the seed is {seed}, but it must be from 0 to 2^63 - 1.")
    if not 0.0 < truncation <= 1.0:
        # An integer may be too large for a float.
        shown = truncation if isinstance(truncation, int) else f"{truncation:g}"
        raise FoundryError(f"truncation is {shown}, but it must be above 0 and at most 1.")


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Network output as pixels.

    Args:
        images: float, shape (n, channels, height, width), from -1 to 1.

    Returns:
        uint8, shape (n, height, width, channels).
    """
    pixels = (images.float() * 127.5 + 127.5).round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
