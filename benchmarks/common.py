"""What the measurements share: prepared images and feature networks, jobs, and scoring.

What takes long to make is kept in `CACHE` and made again when its settings change.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from benchmarks.machine import write_result
from gan_core.config import DataSettings, PipelineSettings, apply_overrides, fingerprint
from gan_core.data.image_set import ImageSet, open_image_set
from gan_core.device import choose_precision
from gan_core.evaluation.evaluator import Evaluator
from gan_core.evaluation.feature_network import FeatureNetwork, make_feature_network
from gan_core.evaluation.real_images import (
    Networks,
    RealImages,
    floor_rows,
    real_images_key,
)
from gan_core.evaluation.reference import Reference
from gan_core.evaluation.report import Evaluation
from gan_core.evaluation_settings import EvaluationSettings
from gan_core.training.job import JOURNAL_FILE, TrainingJob
from gan_core.training.journal import read_journal

PROJECT = Path(__file__).resolve().parents[1]
CACHE = Path.home() / ".cache" / "gan-foundry-benchmarks"
MIRROR = PROJECT.parent / "shared" / "data"
THREADS = 2


def arguments(documentation: str | None) -> argparse.ArgumentParser:
    """A parser that knows `--quick`."""
    parser = argparse.ArgumentParser(description=(documentation or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds")
    return parser


def report(name: str, result: dict[str, Any], *, quick: bool) -> None:
    """Write a result; that of a smoke run means nothing, and is only shown."""
    print(json.dumps(result, indent=2) if quick else write_result(name, result))


def shipped_settings(pipeline: str, **overrides: Any) -> PipelineSettings:
    """The settings of a pipeline as it is shipped, with dotted keys (`__` for the dot) replaced."""
    from pipelines.pipeline_files import load_pipeline

    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    return apply_overrides(load_pipeline(pipeline), changes, "benchmark")


@contextlib.contextmanager
def made_once(folder: Path) -> Iterator[Path | None]:
    """A folder of the cache: the block makes it in the folder it gets, or gets None."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Several measurements may need the same folder at the same time.
    with filelock.FileLock(folder.with_name(folder.name + ".lock")):
        if folder.exists():
            yield None
            return
        temporary = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        temporary.rename(folder)


def prepared_images(data: DataSettings) -> Path:
    """Folder of a prepared image set; the data sets come from `../shared/data` where that is."""
    from gan_core.data.download import MIRROR_VARIABLE
    from gan_core.data.manifest import list_images
    from gan_core.data.preparation import prepare_images

    if MIRROR.is_dir():
        os.environ.setdefault(MIRROR_VARIABLE, MIRROR.as_uri())
    folder = CACHE / f"images-{data.source}-{fingerprint(data)}"
    with made_once(folder) as making:
        if making:
            raw = making / "raw"
            raw.mkdir()
            list_images(data, raw)
            prepare_images(raw, data, making)
            shutil.rmtree(raw)
    return folder


def prepared_network(image_folder: Path, settings: PipelineSettings) -> Path:
    """Folder of the feature network of an image set, with the reference for trainings."""
    images = open_image_set(image_folder)
    made_of = fingerprint([images.sha256, settings.feature_network])
    folder = CACHE / f"feature-network-{made_of}"
    with made_once(folder) as making:
        if making:
            network = make_feature_network(images, settings.feature_network)
            network.save(making)
            Reference.measure(network, images.train).save(making)
    return folder


def make_job(
    name: str, settings: PipelineSettings, image_folder: Path, network_folder: Path | None
) -> TrainingJob:
    """The job that the pipeline would make on the CPU, with `THREADS` threads."""
    return TrainingJob(
        name=name,
        image_set=image_folder,
        image_set_sha256=open_image_set(image_folder).sha256,
        network=settings.network,
        training=settings.training,
        device="cpu",
        precision=choose_precision(settings.training.precision, "cpu"),
        threads=THREADS,
        feature_network=network_folder,
        feature_network_sha256=FeatureNetwork.load(network_folder).sha256
        if network_folder
        else None,
    )


def run_training(job: TrainingJob, folder: Path) -> list[dict[str, Any]]:
    """Train a job in the product's own process; returns the rows of its journal."""
    folder.mkdir(parents=True, exist_ok=True)
    job.write(folder)
    subprocess.run(training_command(folder), cwd=PROJECT, check=True)
    return [row for _, row in read_journal(folder / JOURNAL_FILE)]


def training_command(folder: Path) -> list[str]:
    """Trains the job of a folder; who ends the benchmark ends it, and its checkpoint stays."""
    parent = ["--parent", str(os.getpid())]
    return [sys.executable, "-m", "gan_core.training", str(folder), *parent]


def with_training(job: TrainingJob, **changes: Any) -> TrainingJob:
    """The job with some of its training settings changed."""
    return job.model_copy(update={"training": job.training.model_copy(update=changes)})


def measured_speed(job: TrainingJob, folder: Path, seconds: float) -> float:
    """Images per second of a job's training in the product's own process, measured for so long."""
    folder.mkdir(parents=True)
    with_training(job, kimg=1e6, logging_interval_kimg=0.25).write(folder)
    process = subprocess.Popen(training_command(folder), cwd=PROJECT)
    rows: list[dict[str, Any]] = []
    while len(rows) < 2 or rows[-1]["seconds"] - rows[0]["seconds"] < seconds:
        if process.poll() is not None:
            raise RuntimeError(f"the training ended with status {process.returncode}")
        time.sleep(0.2)
        events = [row for _, row in read_journal(folder / JOURNAL_FILE)]
        rows = [row for row in events if row["event"] == "progress"]
    process.terminate()
    process.wait()
    first, last = rows[0], rows[-1]
    return (last["images"] - first["images"]) / (last["seconds"] - first["seconds"])


def open_evaluator(
    images: ImageSet, network: FeatureNetwork, settings: PipelineSettings
) -> Evaluator:
    """What measures images as the pipeline does; what it knows of the real ones is kept."""
    networks = Networks.choose(network, images, settings.evaluation, settings.feature_network)
    folder = CACHE / f"real-images-{real_images_key(images, networks, settings.evaluation)}"
    with made_once(folder) as making:
        if making:
            RealImages.measure(images, networks, settings.evaluation).save(making)
    return Evaluator(images, networks, RealImages.load(folder), settings.evaluation)


def main_numbers(found: Evaluation) -> dict[str, Any]:
    """The numbers of an evaluation that the tables show."""
    summary = found.summary()
    names = (
        "frechet_distance",
        "floor",
        "precision",
        "recall",
        "density",
        "coverage",
        "class_coverage",
        "class_kl",
        "label_agreement",
        "nearest_distance_ratio",
        "second_frechet_distance",
        "second_floor",
    )
    return {
        **{name: summary.get(name) for name in names},
        "frechet_distance_ci": summary["frechet_distance_ci"],
        "distance_over_floor": found.frechet_distance / found.floor,
        "failed_checks": [check.name for check in found.checks if not check.passed],
        "card": found.card.line,
    }


def sample_labels(images: ImageSet, count: int) -> np.ndarray:
    """The classes that conditional samples shall have for an evaluation, int64, shape (count,)."""
    return images.train.labels[floor_rows(images, EvaluationSettings(samples=count))]


def spread(values: list[float]) -> dict[str, Any]:
    """Median and extremes of what several rounds gave."""
    return {
        "median": statistics.median(values),
        "least": min(values),
        "most": max(values),
        "rounds": values,
    }


def tell(text: str) -> None:
    """A line for the one who waits."""
    print(text, file=sys.stderr, flush=True)
