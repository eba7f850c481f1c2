"""The metric card: everything that a number depends on.

A number without its card means nothing, and numbers whose cards differ are never compared.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from gan_core.errors import FoundryError

if TYPE_CHECKING:
    from gan_core.evaluation.feature_network import FeatureNetwork

LIBRARIES = ("numpy", "torch", "torch-fidelity")


class MetricCard(BaseModel):
    """What the numbers in one feature space depend on, but for the images that are judged.

    Attributes:
        feature_network: Its name.
        feature_network_sha256: Hash of its weights.
        feature_dim: Dimensions of the space.
        feature_network_held_out_accuracy: How well it tells the classes apart.
        resize: What the network does to the images first.
        resolution: Height, width and channels of the images.
        preparation: How the real images were brought to that.
        rounding: Of the samples.
        samples: Images judged.
        reference: The real images that they are measured against.
        reference_images: How many those are.
        reference_sha256: Hash of the prepared set.
        seed: Of the latents, and of the training images that stand for samples in the floor.
        neighbours: k of precision, recall, density and coverage.
        libraries: Versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature_network: str
    feature_network_sha256: str
    feature_dim: int
    feature_network_held_out_accuracy: float | None
    resize: str
    resolution: str
    preparation: str
    rounding: str = "8 bits"
    samples: int
    reference: str
    reference_images: int
    reference_sha256: str
    seed: int
    neighbours: int
    libraries: dict[str, str]

    @property
    def line(self) -> str:
        """The card in one line, to be printed beside a number."""
        accuracy = self.feature_network_held_out_accuracy
        skill = "" if accuracy is None else f", accuracy {accuracy:.1%}"
        versions = ", ".join(f"{name} {number}" for name, number in self.libraries.items())
        return (
            f"in {self.feature_network} {self.feature_network_sha256[:8]} "
            f"(d = {self.feature_dim}{skill}, resize {self.resize}), "
            f"{self.samples} samples against {self.reference_images} "
            f"images of {self.reference} {self.reference_sha256[:8]}, "
            f"{self.resolution} ({self.preparation}; samples {self.rounding}), seed {self.seed}, "
            f"k = {self.neighbours}; {versions}; the floor takes as many training images, or all "
            "there are, in the place of the samples"
        )


def describe_network(network: "FeatureNetwork") -> dict[str, Any]:
    """The network's part of a card."""
    config = network.config
    return {
        "feature_network": config.name,
        "feature_network_sha256": network.sha256,
        "feature_dim": config.feature_dim,
        "feature_network_held_out_accuracy": config.held_out_accuracy,
        "resize": config.resize,
    }


def library_versions() -> dict[str, str]:
    """Of the libraries that the numbers come from; those that are not installed are left out."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def require_same_cards(one: MetricCard, other: MetricCard) -> None:
    """Make sure that the numbers of two cards may be compared.

    Raises:
        FoundryError: They may not; the first difference is named.
    """
    for name in MetricCard.model_fields:
        here, there = getattr(one, name), getattr(other, name)
        if here != there:
            raise FoundryError(
                f"the numbers cannot be compared: {name.replace('_', ' ')} is {here} for the one "
                f"and {there} for the other; measure both in the same way."
            )
