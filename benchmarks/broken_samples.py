"""Samples as broken generators would make them, each in one way that an evaluation must see.

Each function gets the real images and a count, and returns uint8 images of shape (count, height,
width, channels). The tests prove the checks on them; the table of docs/evaluation.md is made of
them.
"""

from collections.abc import Callable

import numpy as np

from gan_core.data.image_set import ImageSet
from gan_core.evaluation.real_images import floor_rows
from gan_core.evaluation_settings import EvaluationSettings

SEED = 0


def one_image(images: ImageSet, count: int) -> np.ndarray:
    """The same image for every latent."""
    return np.repeat(images.held_out.images[:1], count, axis=0)


def class_missing(images: ImageSet, count: int) -> np.ndarray:
    """Real held-out images, but none of class 3."""
    rows = np.flatnonzero(images.held_out.labels != 3)
    return images.held_out.images[np.random.default_rng(SEED).choice(rows, count)]


def half_the_samples_the_same(images: ImageSet, count: int) -> np.ndarray:
    """Real held-out images, every second one the same."""
    rows = np.random.default_rng(SEED).integers(0, len(images.held_out), count)
    samples = images.held_out.images[rows]
    samples[::2] = samples[0]
    return samples


def averages_of_classes(images: ImageSet, count: int) -> np.ndarray:
    """The mean image of each class: what is left when latents are not looked at."""
    split = images.train
    means = [split.images[split.labels == label].mean(0) for label in range(images.classes)]
    return np.array(means)[split.labels[_training_rows(images, count)]].round().astype(np.uint8)


def training_images(images: ImageSet, count: int) -> np.ndarray:
    """The training images themselves."""
    return images.train.images[_training_rows(images, count)]


def training_images_with_noise(images: ImageSet, count: int) -> np.ndarray:
    """Training images with noise that is hardly seen."""
    return with_noise(training_images(images, count), 8)


def pure_noise(images: ImageSet, count: int) -> np.ndarray:
    """Random pixels."""
    stream = np.random.default_rng(SEED)
    return stream.integers(0, 256, (count, *images.shape), dtype=np.uint8)


def black(images: ImageSet, count: int) -> np.ndarray:
    """Nothing."""
    return np.zeros((count, *images.shape), np.uint8)


def pale(images: ImageSet, count: int) -> np.ndarray:
    """Held-out images from 0 to 1 in the place of 0 to 255."""
    rows = np.arange(count) % len(images.held_out)
    return (images.held_out.images[rows] / 255.0).round().astype(np.uint8)


def with_noise(images: np.ndarray, standard_deviation: float) -> np.ndarray:
    """Images with normal noise, in grey levels from 0 to 255."""
    noise = np.random.default_rng(SEED).normal(0, standard_deviation, images.shape)
    return (images + noise).clip(0, 255).round().astype(np.uint8)


def _training_rows(images: ImageSet, count: int) -> np.ndarray:
    return floor_rows(images, EvaluationSettings(samples=count))


# With the check that must see it.
BROKEN: dict[str, tuple[Callable[[ImageSet, int], np.ndarray], str]] = {
    "one image": (one_image, "collapse"),
    "a class missing": (class_missing, "collapse"),
    "half the samples the same": (half_the_samples_the_same, "collapse"),
    "averages of classes": (averages_of_classes, "collapse"),
    "training images": (training_images, "memorisation"),
    "training images, noise 8": (training_images_with_noise, "memorisation"),
    "pure noise": (pure_noise, "broken_output"),
    "black": (black, "broken_output"),
    "pale": (pale, "broken_output"),
}
