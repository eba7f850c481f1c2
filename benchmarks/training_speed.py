"""Images per second of training on the CPU: ours, the usual loop, and what the networks cost alone.

All train a pipeline's networks on its images, with its batch and classes, on two threads. All play
the example's game, the non-saturating loss without a penalty; those named `_r1` add the R1 penalty
in every step:

- `example`: a loop in the manner of PyTorch's DCGAN example (`benchmarks.example_loop`);
- `training`: the product's training as its process runs it: journal, grids, checkpoints and the
  evaluations while training are in its time;
- `bare_engine`: our step on our batches, with nothing written and nothing measured;
- `bare_passes`: the forward and backward passes of our step at the same precision on one batch that
  stays where it is: no optimiser, no data, no weight average;
- `usual_passes`: those of the example in the same place: the discriminator judges the real, the
  generated and, for the generator, again the generated images, and each of these passes takes the
  gradients of its weights.

Each is a process of its own that warms up and then takes its turns while the others wait; who
begins moves on from round to round. Ratios are taken within a round; medians and extremes of the
rounds are written. An evaluation falls into the turns of `training` only every
`monitoring.interval_kimg`, so its ratios are also given over all rounds together.
"""

import shutil
import tempfile
from pathlib import Path

from benchmarks.common import (
    arguments,
    make_job,
    prepared_images,
    prepared_network,
    report,
    shipped_settings,
    spread,
    tell,
    with_training,
)
from benchmarks.turns import Contestant, Turns, take_turns, use_two_threads
from gan_core.data.image_set import open_image_set
from gan_core.idle_threads import give_way_to_other_programs
from gan_core.training.job import TrainingJob

PIPELINES = ("mnist", "cifar10_20pct")
RATIOS = (
    ("training", "example"),
    ("training_r1", "example_r1"),
    ("bare_engine", "bare_passes"),
    ("training", "bare_passes"),
    ("bare_engine_r1", "bare_passes_r1"),
    ("training_r1", "bare_passes_r1"),
    ("bare_engine", "usual_passes"),
    ("training", "usual_passes"),
    ("bare_engine_r1", "usual_passes_r1"),
    ("training_r1", "usual_passes_r1"),
)
ENDLESS_KIMG = 1e6
PENALTY = "_r1"
R1_GAMMA = 0.3


def example(folder: Path, job: TrainingJob, turns: Turns) -> None:
    from benchmarks.example_loop import train_like_the_example

    use_two_threads()
    images = open_image_set(job.image_set)
    train_like_the_example(job, images, turns, folder, job.training.r1_gamma)


def training(folder: Path, job: TrainingJob, turns: Turns) -> None:
    from gan_core.training.loop import train

    train(job, folder, turns)


def bare_engine(_: Path, job: TrainingJob, turns: Turns) -> None:
    import torch

    from gan_core.training.batches import ImageBatches
    from gan_core.training.memory import keep_freed_memory
    from gan_core.training.trainer import Trainer

    use_two_threads()
    keep_freed_memory()
    images = open_image_set(job.image_set)
    batches = ImageBatches(images.train, job.training.seed, torch.device(job.device))
    trainer = Trainer(job, images)
    shown = 0
    while not turns():
        trainer.step(*batches(shown, job.training.batch_size), shown)
        shown += job.training.batch_size


class Resident:
    """Networks, and one batch that stays where it is: what passes alone need."""

    def __init__(self, job: TrainingJob) -> None:
        import torch

        from gan_core.training.batches import ImageBatches
        from gan_core.training.memory import keep_freed_memory
        from gan_core.training.trainer import Trainer

        use_two_threads()
        keep_freed_memory()
        settings, images = job.training, open_image_set(job.image_set)
        game = Trainer(job, images).game
        self.generator, self.discriminator = game.generator, game.discriminator
        batches = ImageBatches(images.train, settings.seed, torch.device(job.device))
        self.real, self.labels = batches(0, settings.batch_size)
        self.real.requires_grad_(settings.r1_gamma > 0)
        self.latents = torch.randn(settings.batch_size, job.network.latent_dim)
        self.precision = torch.autocast("cpu", torch.bfloat16, enabled=job.precision == "bf16")


def bare_passes(_: Path, job: TrainingJob, turns: Turns) -> None:
    import torch
    import torch.nn.functional as F

    from gan_core.losses import squared_slopes

    its = Resident(job)
    r1_gamma = job.training.r1_gamma
    while not turns():
        its.generator.zero_grad()
        its.discriminator.zero_grad()
        with its.precision:
            fake = its.generator(its.latents, its.labels)
            if r1_gamma:  # as in our step: apart, where only one of them has a penalty
                real_logits = its.discriminator(its.real, its.labels).float()
                fake_logits = its.discriminator(fake.detach(), its.labels).float()
            else:
                both = torch.cat([its.real, fake.detach()])
                logits = its.discriminator(both, its.labels.repeat(2)).float()
                real_logits, fake_logits = logits.chunk(2)
        loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        if r1_gamma:
            loss = loss + 0.5 * r1_gamma * squared_slopes(its.real, real_logits).mean()
        loss.backward()
        its.discriminator.requires_grad_(False)
        with its.precision:
            logits = its.discriminator(fake, its.labels).float()
        F.softplus(-logits).mean().backward()
        its.discriminator.requires_grad_(True)


def usual_passes(_: Path, job: TrainingJob, turns: Turns) -> None:
    import torch.nn.functional as F

    from gan_core.losses import squared_slopes

    its = Resident(job)
    r1_gamma = job.training.r1_gamma
    while not turns():
        its.discriminator.zero_grad()
        with its.precision:
            logits = its.discriminator(its.real, its.labels).float()
        loss = F.softplus(-logits).mean()
        if r1_gamma:
            loss = loss + 0.5 * r1_gamma * squared_slopes(its.real, logits).mean()
        loss.backward()
        with its.precision:
            fake = its.generator(its.latents, its.labels)
            logits = its.discriminator(fake.detach(), its.labels).float()
        F.softplus(logits).mean().backward()
        its.generator.zero_grad()
        with its.precision:
            logits = its.discriminator(fake, its.labels).float()
        F.softplus(-logits).mean().backward()


CONTESTANTS = {
    function.__name__ + penalty: function
    for function in (example, training, bare_engine, bare_passes, usual_passes)
    for penalty in ("", PENALTY)
}


def measure(
    pipeline: str, seconds: float, rounds: int, warm_up_seconds: float
) -> dict[str, object]:
    """All contestants on one pipeline's images and networks."""
    tell(f"{pipeline}: preparing")
    settings = shipped_settings(
        pipeline,
        training__kimg=ENDLESS_KIMG,
        training__loss="non_saturating",
        training__r1_gamma=0.0,
        training__r2_gamma=0.0,
        training__penalty_interval_steps=1,
        training__augmentation__transforms=(),
    )
    images = prepared_images(settings.data)
    job = make_job(pipeline, settings, images, prepared_network(images, settings))
    place = Path(tempfile.mkdtemp())
    contestants = {}
    for name in CONTESTANTS:
        (place / name).mkdir()
        penalty = R1_GAMMA if name.endswith(PENALTY) else 0.0
        with_training(job, r1_gamma=penalty).write(place / name)
        contestants[name] = Contestant(
            "benchmarks.training_speed",
            ["--contestant", name, "--folder", place / name],
        )
    try:
        found = take_turns(contestants, seconds, rounds, warm_up_seconds)
    finally:
        for contestant in contestants.values():
            contestant.end()
        shutil.rmtree(place)
    return {
        "batch_size": job.training.batch_size,
        "shape": open_image_set(images).shape,
        "precision": {"example": "fp32", "ours": job.precision},
        "images_per_second": {name: spread(values) for name, values in found.items()},
        "ratios": {
            f"{upper} / {lower}": {
                **spread([a / b for a, b in zip(found[upper], found[lower], strict=True)]),
                "all_rounds_together": sum(found[upper]) / sum(found[lower]),
            }
            for upper, lower in RATIOS
        },
    }


def main() -> None:
    """Measure and write the result, or be one of the contestants."""
    parser = arguments(__doc__)
    parser.add_argument("--pipelines", nargs="+", default=PIPELINES, choices=PIPELINES)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--contestant", choices=CONTESTANTS, help="be this one (internal)")
    parser.add_argument("--folder", type=Path, help="its folder (internal)")
    options = parser.parse_args()
    if options.contestant:
        if not options.contestant.startswith("example"):
            give_way_to_other_programs()
        job = TrainingJob.read(options.folder)
        turns = Turns(job.training.batch_size)
        CONTESTANTS[options.contestant](options.folder, job, turns)
        return
    seconds, rounds, warm_up = (
        (0.5, 2, 0.5) if options.quick else (options.seconds, options.rounds, 5.0)
    )
    result = {
        "seconds_a_turn": seconds,
        "pipelines": {name: measure(name, seconds, rounds, warm_up) for name in options.pipelines},
    }
    report("training_speed", result, quick=options.quick)


if __name__ == "__main__":
    main()
