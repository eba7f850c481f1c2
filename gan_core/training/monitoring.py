"""The evaluation of a generator while it trains: fast, and always from the same latents."""

from collections.abc import Callable

import numpy as np

from gan_core.data.image_set import ImageSet
from gan_core.errors import FoundryError
from gan_core.evaluation.classes import covered_share
from gan_core.evaluation.feature_network import (
    CPU_BATCH_IMAGES,
    GPU_BATCH_IMAGES,
    FeatureNetwork,
    Features,
)
from gan_core.evaluation.frechet import fit_gaussian, frechet_distance
from gan_core.evaluation.pixels import pairwise_distances
from gan_core.evaluation.reference import Reference
from gan_core.generator import ReleasedGenerator
from gan_core.training.alarms import Measurement
from gan_core.training.job import TrainingJob

INCEPTION_BATCH_IMAGES = 16  # on a CPU

LATENT_SEED = 30_000  # neither that of the final evaluation nor that of people's samples


class Monitor:
    """Measures the generator of one training.

    Args:
        job: Names the feature network.
        images: The prepared images.

    Raises:
        FoundryError: The feature network is not the one that the job was made for.
    """

    def __init__(self, job: TrainingJob, images: ImageSet) -> None:
        assert job.feature_network is not None  # noqa: S101
        self._network = FeatureNetwork.load(job.feature_network, job.device)
        if self._network.sha256 != job.feature_network_sha256:
            raise FoundryError(
                f"the feature network in {job.feature_network} is {self._network.sha256[:16]}, but "
                f"the job is for {(job.feature_network_sha256 or '')[:16]}; materialize "
                "feature_network and the generator again."
            )
        self._reference = Reference.load(job.feature_network)
        stream = np.random.default_rng(LATENT_SEED)
        count = job.training.monitoring.samples
        self._labels = stream.choice(images.train.labels, count) if images.classes else None
        self._count = count
        # A batch shall take no longer than seconds: the training may be asked to stop meanwhile.
        on_cpu = job.device == "cpu"
        self._batch_images = GPU_BATCH_IMAGES if not on_cpu else CPU_BATCH_IMAGES
        if on_cpu and self._network.config.kind == "inception":
            self._batch_images = INCEPTION_BATCH_IMAGES

    def measure(
        self,
        generator: ReleasedGenerator,
        images_shown: int,
        accuracy: float | None,
        should_stop: Callable[[], str | None],
    ) -> Measurement | str:
        """Evaluate the generator as it is now.

        Args:
            generator: As it would be released.
            images_shown: Real images shown until now.
            accuracy: The discriminator's, since the last evaluation.
            should_stop: Asked between batches.

        Returns:
            What was found, or the reason to stop.
        """
        labels = self._labels if generator.config.classes else None
        parts = []
        for batch in generator.sample_batches(self._count, seed=LATENT_SEED, labels=labels):
            if reason := should_stop():
                return reason
            parts.append(batch.images)
        pixels = np.concatenate(parts)
        seen = []
        for start in range(0, len(pixels), self._batch_images):
            if reason := should_stop():
                return reason
            seen.append(self._network(pixels[start : start + self._batch_images]))
        features = Features.joined(seen)
        shares = self._reference.class_shares
        differences = pairwise_distances(pixels, labels)
        return Measurement(
            images=images_shown,
            distance=frechet_distance(fit_gaussian(features.vectors), self._reference.gaussian),
            class_coverage=covered_share(features.classes, shares) if len(shares) else None,
            diversity=float(differences.mean()) if len(differences) else None,
            discriminator_accuracy=accuracy,
        )
