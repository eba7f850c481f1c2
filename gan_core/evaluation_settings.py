"""Settings of the evaluation: the feature network, the bounds of the checks, the samples."""

from typing import Annotated, Literal

from pydantic import Field

from .settings_base import Fraction, Settings

INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class FeatureNetworkSettings(Settings):
    """The network in whose feature space distances are measured."""

    kind: Literal["auto", "classifier", "inception", "random"] = Field(
        "auto",
        description="`classifier` is trained on the labelled training split; `inception` is the "
        "network of published FID numbers; `random` is a fixed, randomly initialised network; "
        "`auto` takes the classifier where there are labels, else `random`.",
    )
    weights: str | None = Field(
        None,
        description="inception only: a file, relative to the file that names it, or an address; by "
        "default the mirror, then the address that torch-fidelity publishes.",
    )
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = Field(
        INCEPTION_SHA256, description="inception only: SHA-256 of the weights' file."
    )
    feature_dim: Annotated[int, Field(ge=8, le=2048)] = Field(
        64, description="Dimensions of the feature space; `inception` has 2048."
    )
    epochs: Annotated[int, Field(ge=1, le=1000)] = Field(
        3, description="Passes over the training split."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="Seed of its training.")


class CheckSettings(Settings):
    """Bounds that a generator must keep to be released."""

    blocking: bool = Field(
        True,
        description="Whether a generator out of bounds is kept from release, or it is noted only.",
    )

    class_coverage_least: Fraction = Field(
        0.95, description="collapse: share of the real classes that the samples show."
    )
    class_kl_most: Annotated[float, Field(gt=0.0)] = Field(
        0.1,
        description="collapse: KL divergence, in nats, of the samples' class frequencies from the "
        "real ones.",
    )
    recall_ratio_least: Fraction = Field(
        0.8,
        description="collapse: recall as a share of what real training images reach in the place "
        "of the samples.",
    )
    diversity_least: Annotated[float, Field(ge=0.0)] = Field(
        0.8,
        description="collapse: pixel distance between samples of a class, as a share of that "
        "between real images.",
    )
    nearest_distance_ratio_least: Annotated[float, Field(ge=0.0)] = Field(
        0.8,
        description="memorisation: median distance from a sample to its nearest training image, "
        "as a share of a held-out image's.",
    )
    near_copy_share_most: Fraction = Field(
        0.1,
        description="memorisation: share of the samples that are nearer to a training image than "
        "99 % of the held-out images are.",
    )
    precision_ratio_least: Fraction = Field(
        0.5,
        description="broken_output: precision as a share of what real training images reach in the "
        "place of the samples.",
    )
    contrast_ratio_least: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.67,
        description="broken_output: standard deviation of the samples' pixels as a share of the "
        "real images', and the other way round.",
    )
    constant_share_most: Fraction = Field(
        0.001, description="broken_output: share of the samples that have one colour."
    )


class EvaluationSettings(Settings):
    """How the generator is measured."""

    second_network: Literal["inception", "random"] = Field(
        "random",
        description="The network, blind to the classes, whose numbers stand beside those of "
        "`feature_network`; `inception` with its weights.",
    )
    checks: CheckSettings = CheckSettings()

    samples: Annotated[int, Field(ge=2, le=1_000_000)] = Field(
        10_000,
        description="Generated images; at most as many as the training split has.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        20_000, description="Seed of the latents and of the real images drawn for the floor."
    )
