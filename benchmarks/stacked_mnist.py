"""Stacked-MNIST: how many of 1,000 modes an unconditional generator finds.

Three random digits stand in the red, green and blue of an image (Metz et al. 2016): 128,000 stacks
of training digits to learn from, 26,000 stacks of test digits held out. As in VEEGAN (Srivastava et
al. 2017) and PacGAN (Lin et al. 2018), a classifier of MNIST tells the digit in each channel of
26,000 samples; reported are the modes found (of 1,000) and the Kullback-Leibler divergence of the
samples' modes from equal shares and from the shares of the real stacks. The same of the held-out
stacks, seen through the same classifier, stands beside them as what 26,000 real images reach.

The generator is that of the `mnist` pipeline with three colours and no classes, trained by the
product's own process with the pipeline's settings; `--kimg` or `--seconds` sets the budget.
Networks and budgets are not those of the papers, whose numbers therefore only give the scale.
"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import (
    CACHE,
    THREADS,
    arguments,
    made_once,
    make_job,
    measured_speed,
    prepared_images,
    prepared_network,
    report,
    run_training,
    shipped_settings,
    spread,
    tell,
    with_training,
)
from gan_core.data.hashing import file_sha256
from gan_core.data.image_set import (
    DESCRIPTION_FILE,
    IMAGES_FILE,
    LABELS_FILE,
    ImageSplit,
    open_image_set,
)
from gan_core.evaluation.feature_network import FeatureNetwork
from gan_core.generator import ReleasedGenerator
from gan_core.image_grid import make_grid, save_png
from gan_core.training.job import RELEASE_FOLDER

PIPELINE = "mnist"
MODES = 1000
TRAINING_STACKS, SAMPLES = 128_000, 26_000
STACKING_SEED, SAMPLING_SEED = 0, 20_000
CHUNK = 2_000
CALIBRATION_SECONDS = 20.0


def stack(digits: ImageSplit, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stacks of random digits, uint8, shape (count, height, width, 3), and the mode of each."""
    rows = np.random.default_rng(seed).integers(0, len(digits), (count, 3))
    grey = np.array(digits.images)[..., 0]
    images = np.stack([grey[rows[:, channel]] for channel in range(3)], axis=-1)
    return images, digits.labels[rows] @ [100, 10, 1]


def prepared_stacks(digit_folder: Path, training_stacks: int) -> Path:
    """Folder of the stacks, as an image set without labels, with the modes beside it."""
    digits = open_image_set(digit_folder)
    folder = CACHE / f"images-stacked-mnist-{training_stacks}-{digits.sha256[:16]}"
    with made_once(folder) as making:
        if making:
            train, train_modes = stack(digits.train, training_stacks, STACKING_SEED)
            held_out, held_out_modes = stack(digits.held_out, SAMPLES, STACKING_SEED + 1)
            np.save(making / IMAGES_FILE, np.concatenate([train, held_out]))
            np.save(making / LABELS_FILE, np.full(len(train) + len(held_out), -1))
            np.save(making / "modes.npy", np.concatenate([train_modes, held_out_modes]))
            counts = {"train": len(train), "held_out": len(held_out)}
            pixels = file_sha256(making / IMAGES_FILE, making / LABELS_FILE)
            description = {
                **digits.description,
                "source": "stacked_mnist",
                "sha256": hashlib.sha256(f"{pixels} {counts}".encode()).hexdigest(),
                "channels": 3,
                "class_names": [],
                "class_counts": [],
                "counts": counts,
            }
            (making / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2))
    return folder


def found_modes(images: np.ndarray, classifier: FeatureNetwork) -> np.ndarray:
    """The mode of each stack as the classifier sees it, shape (n,), from 0 to 999."""
    modes = np.zeros(len(images), np.int64)
    for channel in range(3):
        for start in range(0, len(images), CHUNK):
            part = slice(start, start + CHUNK)
            digits = classifier(images[part, ..., channel : channel + 1])
            modes[part] = 10 * modes[part] + digits.classes
    return modes


def divergence(modes: np.ndarray, real_modes: np.ndarray) -> dict[str, float]:
    """Modes found, and the divergence in nats from equal shares and from those of real stacks."""
    shares = np.bincount(modes, minlength=MODES) / len(modes)
    # One stack is added to each real mode, so that a small real set leaves none empty.
    real = np.bincount(real_modes, minlength=MODES) + 1.0
    found = shares > 0
    logs = np.log(shares[found])
    return {
        "modes": int(found.sum()),
        "kl_to_uniform": float((shares[found] * (logs + np.log(MODES))).sum()),
        "kl_to_real": float((shares[found] * (logs - np.log(real / real.sum())[found])).sum()),
    }


def measure(
    kimg: float, seconds: float | None, seeds: list[int], training_stacks: int, threads: int
) -> dict[str, Any]:
    """Train with each seed, and count modes."""
    digit_settings = shipped_settings(PIPELINE)
    digit_folder = prepared_images(digit_settings.data)
    classifier = FeatureNetwork.load(prepared_network(digit_folder, digit_settings))
    settings = shipped_settings(PIPELINE, data__channels=3, training__kimg=kimg)
    stacks = prepared_stacks(digit_folder, training_stacks)
    network = prepared_network(stacks, settings)
    real_modes = np.load(stacks / "modes.npy")[:training_stacks]
    held_out = open_image_set(stacks).held_out.images
    runs = []
    for seed in seeds:
        seeded = make_job("stacked_mnist", settings, stacks, network)
        job = with_training(seeded, seed=seed).model_copy(update={"threads": threads})
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            if seconds:
                speed = measured_speed(
                    job, folder / "calibration", min(CALIBRATION_SECONDS, seconds)
                )
                job = with_training(job, kimg=seconds * speed / 1000)
            rows = run_training(job, folder / "training")
            generator = ReleasedGenerator.load(folder / "training" / RELEASE_FOLDER)
        samples = generator.sample(SAMPLES, seed=SAMPLING_SEED)
        grid = CACHE / "stacked-mnist-grids" / f"seed-{seed}.png"
        grid.parent.mkdir(exist_ok=True)
        save_png(make_grid(samples[:100], 10), grid, 2)
        end = rows[-1]
        runs.append(
            {
                "seed": seed,
                "kimg": end["kimg"],
                "released_kimg": end["released_kimg"],
                "seconds": end["seconds"],
                **divergence(found_modes(samples, classifier), real_modes),
            }
        )
        tell(str(runs[-1]))
    return {
        "threads": threads,
        "samples": SAMPLES,
        "training_stacks": training_stacks,
        "classifier_accuracy": classifier.config.held_out_accuracy,
        "generator_parameters": rows[0]["generator_parameters"],
        "discriminator_parameters": rows[0]["discriminator_parameters"],
        "modes": spread([run["modes"] for run in runs]),
        "kl_to_uniform": spread([run["kl_to_uniform"] for run in runs]),
        "kl_to_real": spread([run["kl_to_real"] for run in runs]),
        "real_stacks": divergence(found_modes(held_out, classifier), real_modes),
        "runs": runs,
    }


def main() -> None:
    """Measure and write the result."""
    parser = arguments(__doc__)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--kimg", type=float, default=1000.0, help="of a training")
    budget.add_argument("--seconds", type=float, help="of a training, in the place of --kimg")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=THREADS)
    options = parser.parse_args()
    if options.quick:
        result = measure(2.0, None, [0], 2000, options.threads)
    else:
        result = measure(
            options.kimg, options.seconds, options.seeds, TRAINING_STACKS, options.threads
        )
    report("stacked_mnist", result, quick=options.quick)


if __name__ == "__main__":
    main()
