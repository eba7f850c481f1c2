"""Images per second of training on a GPU, and how busy the GPU is meanwhile.

Images are random ones of the shapes of MNIST and CIFAR-10, since speed does not depend on what they
show; the networks are those of the pipelines of these names. All contestants are processes of their
own on the same GPU, which take their turns while the others wait:

- `example`: a loop in the manner of PyTorch's DCGAN example (`benchmarks.example_loop`), fp32, with
  the R1 penalty that ours has;
- `eager_loader`: our step without its CUDA graph, fed by a DataLoader with two processes and pinned
  memory;
- `eager`: our step without its CUDA graph, fed by our batches, which lie on the GPU;
- `graph`: our step as the product runs it on one GPU;
- `graph_one_batch`: the same on one batch that stays where it is, so without data;
- `training`: the product's training with its own settings: journal, grids and checkpoints too.

`kernel_share` is the time in which at least one kernel or copy ran, a step, taken by torch's
profiler, as a share of the time of a step in the turns, where nothing is profiled. Needs neither
dagster nor mlflow; without a GPU it says so and ends.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import torch

from benchmarks.common import arguments, report, spread, tell
from benchmarks.peer_adapters.adapter import TensorImages
from benchmarks.turns import Contestant, Turns, take_turns
from gan_core.config import NetworkSettings
from gan_core.data.image_set import (
    DESCRIPTION_FILE,
    IMAGES_FILE,
    LABELS_FILE,
    ImageSet,
    open_image_set,
)
from gan_core.device import choose_precision
from gan_core.training.batches import ImageBatches
from gan_core.training.job import TrainingJob
from gan_core.training.trainer import Trainer
from gan_core.training_settings import TrainingSettings

DEVICE: Literal["cpu", "cuda"] = "cuda"
IMAGES, CLASSES = 20_000, 10
ENDLESS_KIMG = 1e6
WORKERS = 2
PROFILED_STEPS = 50
CASES = {
    "mnist": ((28, 28, 1), NetworkSettings()),
    "cifar10": (
        (32, 32, 3),
        NetworkSettings(
            generator_channels=(256, 128, 64, 32), discriminator_channels=(32, 64, 128, 256)
        ),
    ),
}
RATIOS = (
    ("graph", "eager"),
    ("graph", "eager_loader"),
    ("graph", "graph_one_batch"),
    ("training", "graph"),
    ("training", "example"),
)


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def play(
    trainer: Trainer, batches: Callable[[], tuple[torch.Tensor, torch.Tensor]], turns: Turns
) -> None:
    """Play steps in turns; at the end, tell what the profiler sees."""
    shown = 0

    def step() -> None:
        nonlocal shown
        trainer.step(*batches(), shown)
        shown += trainer.job.training.batch_size

    while not turns():
        step()
    synchronize()
    with torch.profiler.profile() as profiler:
        for _ in range(PROFILED_STEPS):
            step()
        synchronize()
    print(json.dumps({"kernel_seconds_a_step": kernel_seconds(profiler) / PROFILED_STEPS}))


def kernel_seconds(profiler: torch.profiler.profile) -> float:
    """The time in which at least one kernel or copy ran on the GPU."""
    times = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA  # type: ignore[attr-defined]
        # Not the spans that torch draws around an optimiser's kernels, with the gaps between them.
        and not (event.is_user_annotation or event.name.startswith("Optimizer."))
    )
    busy, reached = 0.0, 0.0
    for start, end in times:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return busy / 1e6


def own_batches(job: TrainingJob, images: ImageSet) -> Callable[[], Any]:
    """Our batches, one after the other."""
    batches = ImageBatches(images.train, job.training.seed, torch.device(DEVICE))
    shown = -job.training.batch_size

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal shown
        shown += job.training.batch_size
        return batches(shown, job.training.batch_size)

    return batch


def loaded_batches(job: TrainingJob, images: ImageSet) -> Callable[[], Any]:
    """Those of a DataLoader, moved to the GPU."""
    loader = torch.utils.data.DataLoader(
        TensorImages(images, images.shape[2]),
        batch_size=job.training.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        pin_memory=DEVICE == "cuda",
        persistent_workers=True,
    )

    def endless() -> Iterator[Any]:
        while True:
            yield from loader

    source = endless()

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        real, labels = next(source)
        real = real.to(DEVICE, memory_format=torch.channels_last, non_blocking=True)
        return real, labels.to(DEVICE, non_blocking=True)

    return batch


def without_graph() -> Any:
    """Trainers made meanwhile play every step as it is."""
    return mock.patch("gan_core.training.trainer.GraphedStep", lambda step: step)


def example(folder: Path, job: TrainingJob, images: ImageSet, turns: Turns) -> None:
    from benchmarks.example_loop import train_like_the_example

    train_like_the_example(job, images, turns, folder, job.training.r1_gamma)


def eager_loader(_: Path, job: TrainingJob, images: ImageSet, turns: Turns) -> None:
    with without_graph():
        trainer = Trainer(job, images)
    play(trainer, loaded_batches(job, images), turns)


def eager(_: Path, job: TrainingJob, images: ImageSet, turns: Turns) -> None:
    with without_graph():
        trainer = Trainer(job, images)
    play(trainer, own_batches(job, images), turns)


def graph(_: Path, job: TrainingJob, images: ImageSet, turns: Turns) -> None:
    play(Trainer(job, images), own_batches(job, images), turns)


def graph_one_batch(_: Path, job: TrainingJob, images: ImageSet, turns: Turns) -> None:
    one = own_batches(job, images)()
    play(Trainer(job, images), lambda: one, turns)


def training(folder: Path, job: TrainingJob, _: ImageSet, turns: Turns) -> None:
    from gan_core.training.loop import train

    train(job, folder, turns)


CONTESTANTS = {
    function.__name__: function
    for function in (example, eager_loader, eager, graph, graph_one_batch, training)
}


def write_random_images(shape: tuple[int, int, int], folder: Path) -> None:
    """An image set of noise."""
    stream = np.random.default_rng(0)
    np.save(folder / IMAGES_FILE, stream.integers(0, 256, (IMAGES, *shape), np.uint8))
    np.save(folder / LABELS_FILE, np.arange(IMAGES) % CLASSES)
    description = {
        "sha256": "noise",
        "counts": {"train": IMAGES - CLASSES, "held_out": CLASSES},
        "class_names": [str(label) for label in range(CLASSES)],
        "class_counts": [IMAGES // CLASSES - 1] * CLASSES,
    }
    (folder / DESCRIPTION_FILE).write_text(json.dumps(description))


def measure(
    case: str, batch_size: int, seconds: float, rounds: int, warm_up_seconds: float
) -> dict[str, Any]:
    """All contestants with one shape and batch size."""
    shape, network = CASES[case]
    with tempfile.TemporaryDirectory() as place:
        images = Path(place) / "images"
        images.mkdir()
        write_random_images(shape, images)
        job = TrainingJob(
            name=case,
            image_set=images,
            image_set_sha256="noise",
            network=network,
            training=TrainingSettings(kimg=ENDLESS_KIMG, batch_size=batch_size),
            device=DEVICE,
            precision=choose_precision("auto", DEVICE),
            threads=WORKERS,
        )
        contestants = {}
        for name in CONTESTANTS:
            folder = Path(place) / name
            folder.mkdir()
            job.write(folder)
            contestants[name] = Contestant(
                "benchmarks.gpu_step", ["--contestant", name, "--folder", folder]
            )
        found, last_words = {}, {}
        try:
            found = take_turns(contestants, seconds, rounds, warm_up_seconds)
        finally:
            last_words = {name: contestant.end() for name, contestant in contestants.items()}
    rates = {name: spread(values) for name, values in found.items()}
    shares = {
        name: json.loads(words)["kernel_seconds_a_step"] * rates[name]["median"] / batch_size
        for name, words in last_words.items()
        if words
    }
    return {
        "case": case,
        "shape": shape,
        "batch_size": batch_size,
        "precision": {"example": "fp32", "ours": job.precision},
        "images_per_second": rates,
        "kernel_share": shares,
        "ratios": {
            f"{upper} / {lower}": spread(
                [a / b for a, b in zip(found[upper], found[lower], strict=True)]
            )
            for upper, lower in RATIOS
        },
    }


def main() -> None:
    """Measure and write the result, or be one of the contestants."""
    parser = arguments(__doc__)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--seconds", type=float, default=5.0, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contestant", choices=CONTESTANTS, help="be this one (internal)")
    parser.add_argument("--folder", type=Path, help="its folder (internal)")
    options = parser.parse_args()
    if DEVICE == "cuda" and not torch.cuda.is_available():
        print("skipped: torch sees no GPU on this machine, and this measures one")
        return
    if options.contestant:
        job = TrainingJob.read(options.folder)
        torch.set_num_threads(job.threads)
        torch.backends.cudnn.deterministic = options.contestant != "example"  # as `train` has it
        images = open_image_set(job.image_set)
        turns = Turns(job.training.batch_size, synchronize)
        CONTESTANTS[options.contestant](options.folder, job, images, turns)
        return
    seconds, rounds, warm_up = (
        (0.5, 2, 0.5) if options.quick else (options.seconds, options.rounds, 5.0)
    )
    tell(f"{len(options.cases) * len(options.batch_sizes)} tables of {rounds} rounds")
    begin = time.time()
    tables = [
        measure(case, batch_size, seconds, rounds, warm_up)
        for case in options.cases
        for batch_size in options.batch_sizes
    ]
    result = {
        "gpu": torch.cuda.get_device_name() if DEVICE == "cuda" else DEVICE,
        "seconds_a_turn": seconds,
        "seconds_in_all": time.time() - begin,
        "tables": tables,
    }
    report("gpu_step", result, quick=options.quick)


if __name__ == "__main__":
    main()
