from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan_core.data.image_set import ImageSet, ImageSplit
from gan_core.errors import FoundryError
from gan_core.evaluation.card import describe_network
from gan_core.evaluation.feature_network import FeatureNetwork, make_feature_network
from gan_core.evaluation.network_config import FeatureNetworkConfig, saved_weights_sha256
from gan_core.evaluation_settings import FeatureNetworkSettings


def trained(images: ImageSet, **settings: Any) -> FeatureNetwork:
    return make_feature_network(images, FeatureNetworkSettings(**{"epochs": 1, **settings}))


@pytest.fixture(scope="module")
def few(digit_images: ImageSet) -> ImageSet:
    """The first digits, enough to train on quickly."""
    train, held_out = digit_images.train, digit_images.held_out
    return replace(
        digit_images,
        train=ImageSplit(np.array(train.images[:200]), train.labels[:200]),
        held_out=ImageSplit(np.array(held_out.images[:50]), held_out.labels[:50]),
    )


@pytest.fixture(scope="module")
def unlabelled(few: ImageSet) -> ImageSet:
    return replace(
        few,
        class_names=(),
        train=ImageSplit(few.train.images, np.full(200, -1)),
        held_out=ImageSplit(few.held_out.images, np.full(50, -1)),
    )


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(few: ImageSet) -> None:
    first = trained(few, seed=1)
    assert trained(few, seed=1).sha256 == first.sha256
    assert trained(few, seed=2).sha256 != first.sha256


def test_held_out_images_change_nothing_in_the_weights(few: ImageSet) -> None:
    other = ImageSplit(255 - few.held_out.images, (few.held_out.labels + 1) % 10)
    first, second = trained(few), trained(replace(few, held_out=other))
    assert second.sha256 == first.sha256
    assert second.config.held_out_accuracy != first.config.held_out_accuracy


def test_a_training_image_and_a_training_label_change_the_weights(few: ImageSet) -> None:
    first = trained(few).sha256
    images, labels = few.train.images.copy(), few.train.labels.copy()
    images[17] = 255 - images[17]
    labels[17] = (labels[17] + 1) % 10
    assert trained(replace(few, train=ImageSplit(images, few.train.labels))).sha256 != first
    assert trained(replace(few, train=ImageSplit(few.train.images, labels))).sha256 != first


def test_the_classifier_tells_the_digits_apart(digit_images: ImageSet) -> None:
    network = trained(digit_images, epochs=20)
    accuracy = network.config.held_out_accuracy
    assert accuracy is not None
    assert accuracy > 0.97
    features = network(digit_images.held_out.images)
    assert (features.classes == digit_images.held_out.labels).mean() == accuracy
    assert features.vectors.shape == (359, 64)
    assert features.vectors.dtype == np.float64
    assert features.logits.shape == (359, 10)
    assert network.config.trained_on_sha256 == digit_images.sha256


@pytest.mark.parametrize("kind", ["auto", "random"])
def test_images_without_labels_get_a_random_network(kind: str, unlabelled: ImageSet) -> None:
    network = trained(unlabelled, kind=kind, feature_dim=16)
    assert network.config.kind == "random"
    assert network.config.held_out_accuracy is None
    assert network.config.classes == 0
    assert network(unlabelled.train.images).vectors.shape == (200, 16)
    assert network.sha256 == trained(unlabelled, kind=kind, feature_dim=16).sha256


def test_a_random_network_sees_no_image(few: ImageSet) -> None:
    other = replace(few, train=ImageSplit(255 - few.train.images, few.train.labels))
    assert trained(few, kind="random").sha256 == trained(other, kind="random").sha256


def test_features_of_a_random_network_are_of_the_order_of_one(few: ImageSet) -> None:
    spread = trained(few, kind="random")(few.train.images).vectors.std(0).mean()
    assert 0.1 < spread < 10


def test_a_classifier_without_labels_is_refused(unlabelled: ImageSet) -> None:
    with pytest.raises(FoundryError, match=r"feature_network\.kind is 'classifier', but .* no cl"):
        trained(unlabelled, kind="classifier")


def test_a_network_that_was_saved_gives_the_same_features(few: ImageSet, tmp_path: Path) -> None:
    network = trained(few)
    network.save(tmp_path)
    loaded = FeatureNetwork.load(tmp_path)
    assert loaded.config == network.config
    assert loaded.sha256 == saved_weights_sha256(tmp_path) == network.sha256
    assert FeatureNetworkConfig.read(tmp_path) == network.config
    expected, found = network(few.train.images), loaded(few.train.images)
    assert np.array_equal(expected.vectors, found.vectors)
    assert np.array_equal(expected.logits, found.logits)


def test_features_of_batches_are_those_of_the_whole(few: ImageSet) -> None:
    network = trained(few, kind="random")
    whole = network(few.train.images)
    parts = network.over([few.train.images[:64], few.train.images[64:]])
    assert np.allclose(whole.vectors, parts.vectors, atol=1e-5)


def test_features_do_not_depend_on_what_else_is_in_the_batch(few: ImageSet) -> None:
    network = trained(few)
    together = network(few.train.images)
    alone = network(few.train.images[:1])
    assert np.allclose(together.vectors[:1], alone.vectors, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8, 1), (20, 12, 3), (9, 17, 4)])
def test_any_shape_of_images_has_features(
    shape: tuple[int, int, int], unlabelled: ImageSet
) -> None:
    images = np.zeros((4, *shape), np.uint8)
    split = ImageSplit(images, np.full(4, -1))
    network = trained(replace(unlabelled, train=split, held_out=split), feature_dim=8)
    assert network(images).vectors.shape == (4, 8)


def test_training_a_network_leaves_other_random_numbers_alone(few: ImageSet) -> None:
    import torch

    state = torch.get_rng_state()
    trained(few)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_card_names_the_network_by_its_hash(few: ImageSet) -> None:
    network = trained(few, kind="random", feature_dim=16)
    part = describe_network(network)
    assert part["feature_network"] == "random R16 (seed 0)"
    assert part["feature_network_sha256"] == network.sha256
    assert part["feature_dim"] == 16
