"""The state of one training: players, weight average, random streams and progress.

It is built from a job, goes whole into a checkpoint and comes back from one.
"""

import copy
from pathlib import Path

import torch

from gan_core.data.hashing import file_sha256
from gan_core.data.image_set import ImageSet
from gan_core.errors import FoundryError
from gan_core.generator import GeneratorConfig, ReleasedGenerator
from gan_core.networks import build_discriminator, build_generator
from gan_core.released_files import WEIGHTS_FILE
from gan_core.training.augmentation import AugmentationStrength
from gan_core.training.checkpoint import (
    ALARM,
    Progress,
    load_tensors,
    module_file,
    module_tensors,
    optimizer_tensors,
    read_progress,
    restore_module,
    restore_optimizer,
    save_checkpoint,
)
from gan_core.training.graph import GraphedStep, Play
from gan_core.training.job import (
    CHECKPOINT_FILE,
    DISCRIMINATOR_FILE,
    SNAPSHOT_FOLDER,
    START_FOLDER,
    TrainingJob,
)
from gan_core.training.processes import ALONE, Processes, share_batch_statistics
from gan_core.training.step import (
    SCALARS,
    AdversarialGame,
    Batch,
    WeightAverage,
    ema_decay,
    learning_rate_factor,
)

REAL_SIGN = SCALARS.index("real_sign")
PENALTIES = ("r1_penalty", "r2_penalty", "wgan_gp_penalty")


class Trainer:
    """A training that can be saved and restored between any two steps.

    Args:
        job: What to train; its seed decides the initial weights.
        images: The prepared images.
        processes: Who trains the same job on other parts of every batch.

    Attributes:
        progress: Where the last checkpoint, or the beginning, stands.
        sums: Of what the steps since the last journal line reported.
        rate_factor: What roll-backs have made of the learning rates.
        budget_was_raised: Whether the checkpoint was made for a smaller budget.
    """

    def __init__(self, job: TrainingJob, images: ImageSet, processes: Processes = ALONE) -> None:
        self.job = job
        self.processes = processes
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
        settings, classes = job.training, self.config.classes
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            generator = build_generator(job.network, images.shape, classes)
            discriminator = build_discriminator(job.network, images.shape, classes)
        layout = torch.channels_last
        generator = generator.to(self.device).to(memory_format=layout)
        discriminator = discriminator.to(self.device).to(memory_format=layout)
        self.average = copy.deepcopy(generator).eval().requires_grad_(False)
        if processes.count > 1:
            share_batch_statistics(generator)
        self._weight_average = WeightAverage(self.average, generator)
        self.game = AdversarialGame(generator, discriminator, settings, job.precision, processes)
        # A graph holds one process's step; several average their gradients between the kernels.
        on_one_gpu = job.device == "cuda" and processes.count == 1
        self._play: Play = GraphedStep(self.game.step) if on_one_gpu else self.game.step
        self.augmentation = AugmentationStrength(settings.augmentation, self.device)
        # Not the seed of the sample grids, which would then show the latents of the first batch.
        latent_seed = (settings.seed + 1) % 2**63
        self.latent_stream = torch.Generator(self.device).manual_seed(latent_seed)
        self.sums = torch.zeros(len(SCALARS), device=self.device)
        self.rate_factor = 1.0
        self.budget_was_raised = False
        self.progress = Progress(
            job_fingerprint=job.fingerprint, budgets_images=(job.total_images,)
        )

    def step(self, real: torch.Tensor, labels: torch.Tensor, images_shown: int) -> None:
        """Play one batch, after a number of images shown; add what happened to `sums`.

        Args:
            real: This process's part of the batch, float, shape (n, channels, height, width).
            labels: Its labels, int64, shape (n,).
            images_shown: By all processes.
        """
        settings = self.job.training
        batch_size = settings.batch_size
        step = images_shown // batch_size
        rate = self.rate_factor * self.learning_rate_factor(images_shown)
        self.game.set_learning_rates(
            rate * settings.generator_learning_rate, rate * settings.discriminator_learning_rate
        )
        scalars = self._play(
            Batch(real, labels, *self._draw(batch_size)),
            self.augmentation.probability,
            with_penalty=step % settings.penalty_interval_steps == 0,
            with_generator=(step + 1) % settings.discriminator_steps == 0,
        )
        scalars = self.processes.average(scalars)
        self.augmentation.after_step(scalars[REAL_SIGN], step, batch_size)
        self.sums += scalars
        self._weight_average.update(
            ema_decay(
                images_shown + batch_size,
                batch_size,
                settings.ema_halflife_kimg,
                settings.ema_rampup,
            )
        )

    def steps_with(self, images_shown: int, steps: int) -> dict[str, int]:
        """For each of `SCALARS`, how many of the last steps its sum in `sums` stands for.

        Penalties and the generator's loss, which only some steps have, count as often as they were
        scaled up.
        """
        settings = self.job.training
        end = images_shown // settings.batch_size
        last = range(end - steps, end)
        penalties = sum(step % settings.penalty_interval_steps == 0 for step in last)
        updates = sum((step + 1) % settings.discriminator_steps == 0 for step in last)
        return {
            **dict.fromkeys(SCALARS, steps),
            **dict.fromkeys(PENALTIES, penalties * settings.penalty_interval_steps),
            "generator_loss": updates * settings.discriminator_steps,
        }

    def learning_rate_factor(self, images_shown: int) -> float:
        """Of the schedule, without roll-backs."""
        settings = self.job.training
        return learning_rate_factor(
            images_shown,
            self.job.total_images,
            settings.learning_rate_decay_start,
            settings.learning_rate_warmup_kimg,
        )

    def _draw(self, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """This process's part of the whole batch's latents and random numbers."""
        columns = self.job.network.latent_dim
        latents = torch.randn(batch_size, columns, generator=self.latent_stream, device=self.device)
        uniforms = torch.rand(
            batch_size, self.game.uniforms, generator=self.latent_stream, device=self.device
        )
        parts = self.job.training.accumulation_steps
        return self.processes.own_part(latents, parts), self.processes.own_part(uniforms, parts)

    def released(self) -> ReleasedGenerator:
        """The generator as it would be released now: with the averaged weights."""
        return ReleasedGenerator(self.average, self.config, self.job.device)

    def released_snapshot(self, folder: Path, images_shown: int) -> ReleasedGenerator:
        """The generator as it would be released with a snapshot's averaged weights."""
        tensors = load_tensors(folder / SNAPSHOT_FOLDER / snapshot_name(images_shown))
        average = copy.deepcopy(self.average)
        restore_module("average", average, tensors)
        return ReleasedGenerator(average, self.config, self.job.device)

    def non_finite(self) -> str | None:
        """The first tensor of the networks or their optimisers that holds a NaN or infinity."""
        for name, value in self._tensors().items():
            if value.is_floating_point() and not value.isfinite().all():
                return name
        return None

    def save(self, folder: Path, progress: Progress) -> None:
        """Write a checkpoint, and remove the snapshots that it does not refer to."""
        save_checkpoint(folder / CHECKPOINT_FILE, self._tensors(), progress)
        self.progress = progress
        best = progress.watch.best
        for path in (folder / SNAPSHOT_FOLDER).glob("*"):
            if best is None or path.name != snapshot_name(best.images):
                path.unlink()

    def save_snapshot(self, folder: Path, images_shown: int) -> None:
        """Keep the state as it is now, to be released or returned to."""
        path = folder / SNAPSHOT_FOLDER / snapshot_name(images_shown)
        path.parent.mkdir(exist_ok=True)
        save_checkpoint(path, self._tensors(), self.progress)

    def restore(self, folder: Path) -> None:
        """Continue from the folder's checkpoint, if there is one; else begin as the job says.

        Raises:
            FoundryError: It cannot be read, or belongs to a job with other settings or with a
                larger budget; or the weights to begin with are not those of the job.
        """
        path = folder / CHECKPOINT_FILE
        found = read_progress(path)
        if found is None:
            if self.job.start_sha256 is not None:
                self._begin_with(folder / START_FOLDER, self.job.start_sha256)
            return
        if found.job_fingerprint != self.job.fingerprint:
            raise FoundryError(
                f"{path} belongs to job {found.job_fingerprint}, but this job is "
                f"{self.job.fingerprint}; train in another folder or remove that one."
            )
        total = self.job.total_images
        if found.images > total:
            raise FoundryError(
                f"{path} has been trained for {found.images / 1000:g} kimg, but this job's "
                f"training.kimg is {self.job.training.kimg:g}; raise it or train in another folder."
            )
        self.budget_was_raised = found.budgets_images[-1] != total
        stopped_by_alarm = self.budget_was_raised and found.finished == ALARM
        if self.budget_was_raised:
            budgets = (*found.budgets_images, total)
            # Patience begins anew: with the new budget the rates are others.
            watch = found.watch.model_copy(update={"since_best": 0})
            changes = {"budgets_images": budgets, "finished": None, "watch": watch}
            found = found.model_copy(update=changes)
        tensors = load_tensors(path)
        self._restore_players(tensors)
        self.latent_stream.set_state(tensors["latent_stream"])
        self.sums.copy_(tensors["sums"])
        self.rate_factor = found.rate_factor
        self.progress = found
        if stopped_by_alarm and found.watch.best is not None:  # not what the alarm was about
            self.return_to_snapshot(folder, found.watch.best.images)
            returned = {"watch": found.watch.rolled_back(), "is_at_snapshot": True}
            self.progress = found.model_copy(update=returned)

    def return_to_snapshot(self, folder: Path, images_shown: int) -> None:
        """Take the players of a snapshot; data, latents and schedule go on from here."""
        self._restore_players(load_tensors(folder / SNAPSHOT_FOLDER / snapshot_name(images_shown)))
        self.sums.zero_()

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {
            **module_tensors("generator", self.game.generator),
            **module_tensors("discriminator", self.game.discriminator),
            **module_tensors("average", self.average),
            **optimizer_tensors("generator_optimizer", self.game.generator_optimizer),
            **optimizer_tensors("discriminator_optimizer", self.game.discriminator_optimizer),
            **self.augmentation.tensors(),
            "latent_stream": self.latent_stream.get_state(),
            "sums": self.sums,
        }

    def _begin_with(self, start: Path, sha256: str) -> None:
        """Take the weights of a released generator, and of its opponent where they were kept."""
        weights = start / WEIGHTS_FILE
        if file_sha256(weights) != sha256:
            raise FoundryError(
                f"{weights} is not the file with hash {sha256[:16]} that the job begins with; "
                f"remove {start.parent} and materialize the generator again."
            )
        released = load_tensors(weights)
        self.game.generator.load_state_dict(released)
        self.average.load_state_dict(released)
        if (start / DISCRIMINATOR_FILE).exists():
            self.game.discriminator.load_state_dict(load_tensors(start / DISCRIMINATOR_FILE))

    def released_discriminator(self, folder: Path, images_shown: int | None) -> bytes:
        """The discriminator as a safetensors file: that of a snapshot, or as it is now."""
        tensors = (
            module_tensors("discriminator", self.game.discriminator)
            if images_shown is None
            else load_tensors(folder / SNAPSHOT_FOLDER / snapshot_name(images_shown))
        )
        return module_file("discriminator", tensors)

    def _restore_players(self, tensors: dict[str, torch.Tensor]) -> None:
        restore_module("generator", self.game.generator, tensors)
        restore_module("discriminator", self.game.discriminator, tensors)
        restore_module("average", self.average, tensors)
        restore_optimizer("generator_optimizer", self.game.generator_optimizer, tensors)
        restore_optimizer("discriminator_optimizer", self.game.discriminator_optimizer, tensors)
        self.augmentation.restore(tensors)


def snapshot_name(images_shown: int) -> str:
    """The file of the snapshot that was taken after a number of images."""
    return f"images-{images_shown:012d}.safetensors"
