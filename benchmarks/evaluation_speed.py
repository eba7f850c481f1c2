"""The time of an evaluation beside that of its bare generation and feature extraction.

10,000 samples of an untrained generator of the `mnist` pipeline on two threads. `bare` generates
them and takes their features in both networks; `evaluation` is the whole of `Evaluator.evaluate`,
with every metric, interval and check. What is known of the real images is measured before, once.
"""

import time
from typing import Any

import torch

from benchmarks import common
from gan_core.data.image_set import open_image_set
from gan_core.evaluation.evaluator import Evaluator
from gan_core.evaluation.feature_network import FeatureNetwork
from gan_core.generator import GeneratorConfig, ReleasedGenerator
from gan_core.networks import build_generator

PIPELINE = "mnist"


def bare(evaluator: Evaluator, generator: ReleasedGenerator) -> None:
    labels = evaluator.labels
    samples = generator.sample(len(labels), seed=evaluator.settings.seed, labels=labels)
    for network in evaluator.networks:
        network(samples)


def seconds_of(work: Any, *arguments: Any) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def measure(samples: int, rounds: int) -> dict[str, Any]:
    """Both in turn."""
    torch.set_num_threads(common.THREADS)
    settings = common.shipped_settings(PIPELINE, evaluation__samples=samples)
    images = open_image_set(folder := common.prepared_images(settings.data))
    network = FeatureNetwork.load(common.prepared_network(folder, settings))
    evaluator = common.open_evaluator(images, network, settings)
    torch.manual_seed(0)
    config = GeneratorConfig(
        pipeline=PIPELINE,
        network=settings.network,
        height=images.shape[0],
        width=images.shape[1],
        channels=images.shape[2],
        class_names=images.class_names,
        class_counts=tuple(images.description["class_counts"]),
    )
    module = build_generator(config.network, config.shape, config.classes)
    generator = ReleasedGenerator(module, config, "cpu")
    seconds: dict[str, list[float]] = {"bare": [], "evaluation": []}
    for round_number in range(rounds + 1):
        both = [("bare", bare, evaluator), ("evaluation", Evaluator.evaluate, evaluator)]
        for name, work, owner in both if round_number % 2 else both[::-1]:
            taken = seconds_of(work, owner, generator)
            if round_number:  # the first one warms up
                seconds[name].append(taken)
    pairs = zip(seconds["evaluation"], seconds["bare"], strict=True)
    return {
        "samples": samples,
        "seconds": {name: common.spread(values) for name, values in seconds.items()},
        "evaluation_over_bare": common.spread([whole / part for whole, part in pairs]),
    }


def main() -> None:
    """Measure and write the result."""
    options = common.arguments(__doc__).parse_args()
    result = measure(300, 2) if options.quick else measure(10_000, 5)
    common.report("evaluation_speed", result, quick=options.quick)


if __name__ == "__main__":
    main()
