"""The state of one training: players, weight average, random streams and progress.

It is built from a job, goes whole into a checkpoint and comes back from one.
"""

import copy
from pathlib import Path

import torch

from gan_core.data.image_set import ImageSet
from gan_core.errors import FoundryError
from gan_core.generator import GeneratorConfig, ReleasedGenerator
from gan_core.networks import build_discriminator, build_generator
from gan_core.training.checkpoint import (
    Progress,
    load_tensors,
    module_tensors,
    optimizer_tensors,
    read_progress,
    restore_module,
    restore_optimizer,
    save_checkpoint,
)
from gan_core.training.job import CHECKPOINT_FILE, TrainingJob
from gan_core.training.step import (
    SCALARS,
    AdversarialGame,
    ema_decay,
    learning_rate_factor,
    update_average,
)


class Trainer:
    """A training that can be saved and restored between any two steps.

    Args:
        job: What to train; its seed decides the initial weights.
        images: The prepared images.
    """

    def __init__(self, job: TrainingJob, images: ImageSet) -> None:
        self.job = job
        self.device = torch.device(job.device)
        self.config = GeneratorConfig(
            pipeline=job.name,
            network=job.network,
            height=images.shape[0],
            width=images.shape[1],
            channels=images.shape[2],
            class_names=images.class_names,
            class_counts=images.description["class_counts"],
        )
        classes = self.config.classes
        with torch.random.fork_rng():
            torch.manual_seed(job.training.seed)
            generator = build_generator(job.network, images.shape, classes)
            discriminator = build_discriminator(job.network, images.shape, classes)
        layout = torch.channels_last
        self.game = AdversarialGame(
            generator.to(self.device).to(memory_format=layout),
            discriminator.to(self.device).to(memory_format=layout),
            job.training,
            job.precision,
        )
        self.average = copy.deepcopy(self.game.generator).eval().requires_grad_(False)
        # Not the seed of the sample grids, which would then show the latents of the first batch.
        latent_seed = (job.training.seed + 1) % 2**63
        self.latent_stream = torch.Generator(self.device).manual_seed(latent_seed)
        self.sums = torch.zeros(len(SCALARS), device=self.device)
        self.progress = Progress(job.fingerprint)

    def step(self, real: torch.Tensor, labels: torch.Tensor, images_shown: int) -> None:
        """Play one batch, after a number of images shown; add what happened to `sums`."""
        settings, batch_size = self.job.training, len(real)
        rate = learning_rate_factor(
            images_shown, self.job.total_images, settings.learning_rate_decay_start
        )
        self.game.set_learning_rates(
            rate * settings.generator_learning_rate, rate * settings.discriminator_learning_rate
        )
        latents = torch.randn(
            batch_size,
            self.job.network.latent_dim,
            generator=self.latent_stream,
            device=self.device,
        )
        self.sums += self.game.step(real, labels, latents)
        decay = ema_decay(images_shown + batch_size, batch_size, settings.ema_halflife_kimg)
        update_average(self.average, self.game.generator, decay)

    def released(self) -> ReleasedGenerator:
        """The generator as it would be released now: with the averaged weights."""
        return ReleasedGenerator(self.average, self.config, self.job.device)

    def save(self, folder: Path, progress: Progress) -> None:
        """Write a checkpoint."""
        tensors = {
            **module_tensors("generator", self.game.generator),
            **module_tensors("discriminator", self.game.discriminator),
            **module_tensors("average", self.average),
            **optimizer_tensors("generator_optimizer", self.game.generator_optimizer),
            **optimizer_tensors("discriminator_optimizer", self.game.discriminator_optimizer),
            "latent_stream": self.latent_stream.get_state(),
            "sums": self.sums,
        }
        save_checkpoint(folder / CHECKPOINT_FILE, tensors, progress)
        self.progress = progress

    def restore(self, folder: Path) -> None:
        """Continue from the folder's checkpoint, if there is one.

        Raises:
            FoundryError: It belongs to a job with other settings.
        """
        path = folder / CHECKPOINT_FILE
        found = read_progress(path)
        if found is None:
            return
        if found.job_fingerprint != self.job.fingerprint:
            raise FoundryError(
                f"{path} belongs to job {found.job_fingerprint}, but this job is "
                f"{self.job.fingerprint}; train in another folder or remove that one."
            )
        tensors = load_tensors(path)
        restore_module("generator", self.game.generator, tensors)
        restore_module("discriminator", self.game.discriminator, tensors)
        restore_module("average", self.average, tensors)
        restore_optimizer("generator_optimizer", self.game.generator_optimizer, tensors)
        restore_optimizer("discriminator_optimizer", self.game.discriminator_optimizer, tensors)
        self.latent_stream.set_state(tensors["latent_stream"])
        self.sums.copy_(tensors["sums"])
        self.progress = found
