"""The FID network with made-up weights: the published ones are too large for a test machine."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from gan_core.data.image_set import ImageSet, ImageSplit
from gan_core.errors import FoundryError
from gan_core.evaluation.feature_network import FeatureNetwork, make_feature_network
from gan_core.evaluation.inception_weights import ADDRESS, FILE_NAME, find_weights
from gan_core.evaluation.network_config import saved_weights_sha256
from gan_core.evaluation.real_images import Networks
from gan_core.evaluation_settings import INCEPTION_SHA256, FeatureNetworkSettings


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the published file's format."""
    file = tmp_path_factory.mktemp("inception") / FILE_NAME

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: object) -> None:  # type: ignore[override]
            """Keep what the initialisation gave."""

    torch.save({}, file)
    torch.manual_seed(0)
    net = Untrained("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file))
    torch.save(net.state_dict(), file)
    return file


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def settings(weights: Path) -> FeatureNetworkSettings:
    return FeatureNetworkSettings(
        kind="inception", weights=str(weights), weights_sha256=sha256(weights)
    )


@pytest.fixture
def few(digit_images: ImageSet) -> ImageSet:
    train, held_out = digit_images.train, digit_images.held_out
    return replace(
        digit_images,
        train=ImageSplit(np.array(train.images[:4]), train.labels[:4]),
        held_out=ImageSplit(np.array(held_out.images[:4]), held_out.labels[:4]),
    )


def test_features_and_logits_are_those_of_torch_fidelity(
    few: ImageSet, settings: FeatureNetworkSettings, weights: Path
) -> None:
    network = make_feature_network(few, settings)
    found = network(few.train.images)
    original = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], str(weights)
    )
    colours = torch.tensor(few.train.images).permute(0, 3, 1, 2).repeat(1, 3, 1, 1)
    vectors, logits = original(colours)
    np.testing.assert_allclose(found.vectors, vectors.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.logits, logits.numpy(), rtol=1e-4, atol=1e-5)
    assert found.vectors.shape == (4, 2048)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_alpha_is_not_seen_and_grey_is_shown_in_colour(
    channels: int, few: ImageSet, settings: FeatureNetworkSettings
) -> None:
    grey = np.array(few.train.images[:2])
    colours = np.repeat(grey, 3, axis=3)
    alpha = np.random.default_rng(0).integers(0, 256, (*grey.shape[:3], 1), dtype=np.uint8)
    images = {2: [grey, alpha], 3: [colours], 4: [colours, alpha]}[channels]
    network = make_feature_network(few, settings)
    expected = network(grey).vectors
    np.testing.assert_allclose(network(np.concatenate(images, 3)).vectors, expected, rtol=1e-4)


def test_the_network_is_kept_with_its_weights_and_named_by_their_hash(
    few: ImageSet, settings: FeatureNetworkSettings, tmp_path: Path
) -> None:
    network = make_feature_network(few, settings)
    network.save(tmp_path)
    loaded = FeatureNetwork.load(tmp_path)
    assert loaded.sha256 == network.sha256 == settings.weights_sha256
    assert saved_weights_sha256(tmp_path) == network.sha256
    assert loaded.config.name == "inception-2015-12-05"
    assert "299x299" in loaded.config.resize
    assert np.array_equal(loaded(few.held_out.images).vectors, network(few.held_out.images).vectors)


def test_it_can_stand_beside_a_classifier(few: ImageSet, settings: FeatureNetworkSettings) -> None:
    from gan_core.evaluation_settings import EvaluationSettings

    gate = make_feature_network(few, FeatureNetworkSettings(epochs=1))
    chosen = EvaluationSettings(second_network="inception")
    assert Networks.choose(gate, few, chosen, settings).second.config.kind == "inception"


def test_another_file_is_refused(weights: Path, few: ImageSet) -> None:
    settings = FeatureNetworkSettings(kind="inception", weights=str(weights))
    with pytest.raises(FoundryError, match=f"but {INCEPTION_SHA256} is asked for; download"):
        make_feature_network(few, settings)


def test_a_file_with_code_in_it_is_refused(tmp_path: Path, few: ImageSet) -> None:
    file = tmp_path / "evil.pth"
    torch.save({"run": print}, file)
    settings = FeatureNetworkSettings(
        kind="inception", weights=str(file), weights_sha256=sha256(file)
    )
    with pytest.raises(FoundryError, match="not a file of tensors"):
        make_feature_network(few, settings)


def test_a_file_that_is_not_there_is_named_with_what_to_download() -> None:
    with pytest.raises(FoundryError, match=r"weights is /nowhere/w\.pth, where there is no file"):
        find_weights("/nowhere/w.pth", INCEPTION_SHA256)


def test_the_mirror_is_asked_first_and_the_file_kept(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mirror" / "inception").mkdir(parents=True)
    (tmp_path / "mirror" / "inception" / FILE_NAME).write_bytes(weights.read_bytes())
    monkeypatch.setenv("GAN_FOUNDRY_MIRROR", (tmp_path / "mirror").as_uri())
    file = find_weights(None, sha256(weights))
    assert file.read_bytes() == weights.read_bytes()
    monkeypatch.setenv("GAN_FOUNDRY_MIRROR", (tmp_path / "nowhere").as_uri())
    assert find_weights(None, sha256(weights)) == file


def test_without_a_network_the_error_says_what_to_download_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    address = (tmp_path / FILE_NAME).as_uri()
    with pytest.raises(FoundryError) as caught:
        find_weights(address, INCEPTION_SHA256)
    for part in ("there is no such file", ADDRESS, "name the file in feature_network.weights"):
        assert part in str(caught.value)
