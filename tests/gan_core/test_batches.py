import numpy as np
import pytest
import torch

from gan_core.data.image_set import ImageSplit
from gan_core.errors import OutOfMemoryError
from gan_core.training.batches import ImageBatches

COUNT = 50


@pytest.fixture
def split() -> ImageSplit:
    """Images whose first pixel is their number."""
    images = np.zeros((COUNT, 4, 6, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(COUNT)
    return ImageSplit(images, np.arange(COUNT) % 7)


def batches_of(split: ImageSplit, seed: int = 0) -> ImageBatches:
    return ImageBatches(split, seed, torch.device("cpu"))


def numbers(images: torch.Tensor) -> list[int]:
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def epoch(batches: ImageBatches, number: int, batch_size: int) -> list[int]:
    starts = range(number * COUNT, (number + 1) * COUNT, batch_size)
    return [found for start in starts for found in numbers(batches(start, batch_size)[0])]


def test_every_epoch_shows_every_image_once_in_another_order(split: ImageSplit) -> None:
    batches = batches_of(split)
    first, second = epoch(batches, 0, 10), epoch(batches, 1, 10)
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert first != second
    assert first != sorted(first)


def test_a_batch_that_ends_an_epoch_begins_the_next(split: ImageSplit) -> None:
    batches = batches_of(split)
    shown = [found for start in range(0, 3 * COUNT, 15) for found in numbers(batches(start, 15)[0])]
    assert sorted(shown) == sorted(3 * list(range(COUNT)))


def test_a_batch_may_be_larger_than_the_set(split: ImageSplit) -> None:
    images, _ = batches_of(split)(0, 2 * COUNT)
    assert sorted(numbers(images)) == sorted(2 * list(range(COUNT)))


def test_the_order_depends_on_nothing_but_the_seed_and_the_images_shown(split: ImageSplit) -> None:
    one, other = batches_of(split), batches_of(split)
    other(0, 10)
    assert torch.equal(one(70, 10)[0], other(70, 10)[0])
    assert not torch.equal(one(70, 10)[0], batches_of(split, seed=1)(70, 10)[0])


def test_each_part_that_is_learned_from_holds_random_images(split: ImageSplit) -> None:
    # On the CPU images are read in the order of their file, which may be that of their classes.
    batches = ImageBatches(split, 0, torch.device("cpu"), parts=2)
    one, other = (sorted(numbers(half)) for half in batches(0, 40)[0].chunk(2))
    assert sorted(one + other) == numbers(batches_of(split)(0, 40)[0])
    assert min(max(one), max(other)) > 30


def test_images_come_with_their_own_labels_from_minus_one_to_one(split: ImageSplit) -> None:
    split.images[:, 1, 1, 1] = 255
    images, labels = batches_of(split)(0, 20)
    assert images.shape == (20, 3, 4, 6)
    assert labels.tolist() == [number % 7 for number in numbers(images)]
    assert (images.min(), images.max()) == (-1.0, 1.0)


def test_images_without_labels_come_with_labels_that_networks_may_be_given() -> None:
    split = ImageSplit(np.zeros((5, 4, 4, 1), np.uint8), np.full(5, -1))
    assert batches_of(split)(0, 5)[1].tolist() == [0] * 5


def test_images_that_a_gpu_does_not_hold_are_one_sentence(
    split: ImageSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "tensor", full)
    with pytest.raises(OutOfMemoryError, match="the 50 training images take 0.0 GB, which the GPU"):
        ImageBatches(split, 0, torch.device("cuda"))
