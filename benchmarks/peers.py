"""GAN trainers from the package registry and ours: the same images, seconds and threads.

Every contestant gets the same prepared 32x32 training images (MNIST resized, and the fifth of
CIFAR-10), the same wall-clock time on as many threads of the same machine, one after the other, and
then generates the same number of uint8 samples. All are scored by our evaluator: the Fréchet
distance to the held-out images in the features of a classifier of that image set, the floor beside
it, and class coverage.

- The time is that of the training call, with whatever that package writes meanwhile; imports,
  sampling, writing pictures for a package that reads files, and the short run that tells how many
  steps fit into the time (for those whose learning rates decay to the end) are not counted.
- Ours trains with the settings of the pipelines at 32x32, with and without classes. Evaluation
  while training is off, so that nothing is chosen by the network that scores.
- The peers train as their documentation says, on what they ship: fp32, their own networks, their
  own optimisers. `-narrow` contestants have narrower networks, by the packages' own arguments,
  since the published widths are made for GPUs. What had to be changed to run a package is in its
  row.

The peers live in a virtual environment of their own in the cache, which sees this environment's
torch and adds the packages below without their dependencies.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import (
    CACHE,
    PROJECT,
    THREADS,
    arguments,
    made_once,
    main_numbers,
    make_job,
    measured_speed,
    open_evaluator,
    prepared_images,
    prepared_network,
    report,
    run_training,
    sample_labels,
    shipped_settings,
    tell,
)
from benchmarks.machine import RESULTS, describe_machine
from gan_core.config import PipelineSettings, fingerprint
from gan_core.data.image_set import open_image_set
from gan_core.evaluation.feature_network import FeatureNetwork
from gan_core.generator import ReleasedGenerator
from gan_core.image_grid import make_grid, save_png
from gan_core.training.job import RELEASE_FOLDER

PIPELINES = ("mnist", "cifar10_20pct")
SIDE = 32
SEED = 20_000
CALIBRATION_SHARE, LEAST_CALIBRATION_SECONDS = 0.03, 3.0
SHARE_OF_THE_TIME = 0.97  # our budget is in images: the estimate shall not run over the time

# The peers, and what they import beyond the dependencies of this project.
PACKAGES = (
    "torch-mimicry==0.1.16",
    "lightweight-gan==1.2.1",
    "absl-py==2.5.1",
    "adabelief-pytorch==0.2.1",
    "colorama==0.4.6",
    "einops==0.8.2",
    "kornia",
    "imageio==2.38.1",
    "kornia-rs",
    "lazy-loader==0.6",
    "scikit-image==0.26.0",
    "tensorboard==2.21.0",
    "tifffile==2026.3.3",
    "tqdm",
)

# Contestants: whether ours are conditional, and the adapter of a peer with its arguments.
OURS = {"ours-conditional": True, "ours-unconditional": False}
PEERS = {
    "mimicry-sngan": ["mimicry"],
    "mimicry-sngan-narrow": ["mimicry", "--narrow"],
    "lightweight-gan-narrow": ["lightweight", "--narrow"],
}


def peer_python() -> Path:
    """The interpreter of the peers' environment, which is made when it is not there."""
    base = sysconfig.get_paths()["purelib"]
    folder = CACHE / f"peers-{fingerprint([PACKAGES, base, sys.version])}"
    with made_once(folder) as making:
        if making:
            tell("making the peers' environment")
            subprocess.run([sys.executable, "-m", "venv", making], check=True)
            (site,) = making.glob("lib/python*/site-packages")
            (site / "ours.pth").write_text(f"import site; site.addsitedir({base!r})\n")
            install = ["-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES]
            subprocess.run([making / "bin" / "python", *install], check=True)
    return folder / "bin" / "python"


def train_peer(
    adapter: list[str], images: Path, seconds: float, threads: int, count: int, folder: Path
) -> tuple[np.ndarray, dict[str, Any]]:
    """Samples of a peer, and what it tells of its training."""
    module, *options = adapter
    command = [str(peer_python()), "-m", f"benchmarks.peer_adapters.{module}", *options]
    task = ["--images", str(images), "--seconds", str(seconds), "--samples", str(count)]
    task += ["--threads", str(threads)]
    with (folder / "log.txt").open("w") as log:
        subprocess.run(
            [*command, *task, "--folder", str(folder)],
            cwd=PROJECT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            check=True,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    return np.load(folder / "samples.npy"), json.loads((folder / "adapter.json").read_text())


def train_ours(
    pipeline: str,
    settings: PipelineSettings,
    images: Path,
    seconds: float,
    threads: int,
    count: int,
    folder: Path,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The same for ours."""
    job = make_job(pipeline, settings, images, None).model_copy(update={"threads": threads})
    calibration_seconds = max(LEAST_CALIBRATION_SECONDS, CALIBRATION_SHARE * seconds)
    speed = measured_speed(job, folder / "calibration", calibration_seconds)
    budget = job.training.model_copy(update={"kimg": SHARE_OF_THE_TIME * seconds * speed / 1000})
    rows = run_training(job.model_copy(update={"training": budget}), folder / "training")
    begin, end = rows[0], rows[-1]
    generator = ReleasedGenerator.load(folder / "training" / RELEASE_FOLDER)
    labels = sample_labels(open_image_set(images), count)
    conditional = bool(generator.config.classes)
    samples = generator.sample(count, seed=SEED, labels=labels if conditional else None)
    return samples, {
        "package": "GAN Foundry",
        "settings": f"pipeline {pipeline} at {SIDE}x{SIDE}, {job.precision}",
        "adaptations": "none",
        "seconds": end["seconds"],
        "images_shown": end["images"],
        "generator_parameters": begin["generator_parameters"],
        "discriminator_parameters": begin["discriminator_parameters"],
    }


def compete(
    name: str, pipeline: str, seconds: float, threads: int, count: int, grids: Path
) -> dict[str, Any]:
    """One contestant on one image set."""
    settings = shipped_settings(
        pipeline,
        data__resolution=SIDE,
        evaluation__samples=count,
        network__conditional=OURS.get(name, True),
        training__monitoring__interval_kimg=0.0,
    )
    image_folder = prepared_images(settings.data)
    network = FeatureNetwork.load(prepared_network(image_folder, settings))
    images = open_image_set(image_folder)
    count = min(count, len(images.train))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        start = time.perf_counter()
        if name in OURS:
            samples, told = train_ours(
                pipeline, settings, image_folder, seconds, threads, count, folder
            )
        else:
            samples, told = train_peer(PEERS[name], image_folder, seconds, threads, count, folder)
        whole = time.perf_counter() - start
    grids.mkdir(parents=True, exist_ok=True)
    save_png(make_grid(samples[:64], 8), grids / f"{pipeline}-{name}.png", 2)
    return {
        "contestant": name,
        "pipeline": pipeline,
        "conditional": OURS.get(name, False),
        **told,
        "images_per_second": told["images_shown"] / told["seconds"],
        "seconds_with_all_else": whole,
        "samples": count,
        "machine": describe_machine(),
        **main_numbers(open_evaluator(images, network, settings).evaluate_images(samples)),
    }


def kept_rows(
    seconds: float, threads: int, pipelines: Sequence[str], contestants: Sequence[str]
) -> list[dict[str, Any]]:
    """What was measured in the same time with as many threads, less what is measured now."""
    path = RESULTS / "peers.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if (found.get("seconds"), found.get("threads")) != (seconds, threads):
        return []
    return [
        row
        for row in found["rows"]
        if row["pipeline"] not in pipelines or row["contestant"] not in contestants
    ]


def main() -> None:
    """Measure, and write the result after every contestant."""
    names = [*OURS, *PEERS]
    parser = arguments(__doc__)
    parser.add_argument("--pipelines", nargs="+", default=PIPELINES, choices=PIPELINES)
    parser.add_argument("--contestants", nargs="+", default=names, choices=names)
    parser.add_argument("--seconds", type=float, default=300.0, help="of training, at most")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--grids", type=Path, default=CACHE / "peer-grids", help="folder for grids")
    options = parser.parse_args()
    seconds, samples, pipelines = options.seconds, options.samples, options.pipelines
    if options.quick:
        seconds, samples, pipelines = 5.0, 500, pipelines[:1]
    rows = kept_rows(seconds, options.threads, pipelines, options.contestants)
    for pipeline in pipelines:
        for name in options.contestants:
            rows.append(compete(name, pipeline, seconds, options.threads, samples, options.grids))
            tell(
                f"{pipeline} {name}: distance {rows[-1]['frechet_distance']:.2f}, "
                f"floor {rows[-1]['floor']:.2f}, {rows[-1]['images_shown']} images"
            )
            result = {"seconds": seconds, "threads": options.threads, "rows": rows}
            report("peers", result, quick=options.quick)


if __name__ == "__main__":
    main()
