"""What each metric sees: noise added to real images, and each broken generator, with intervals.

On the MNIST test split in the features of the pipeline's classifier, beside a random network. The
noise is added to training images that stand for samples, and memorisation says so; their other
numbers are what counts. Held-out images stand for themselves: their distance is 0 by construction,
so half of them is measured against the other half.
"""

import dataclasses
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.broken_samples import BROKEN, training_images, with_noise
from gan_core.data.image_set import ImageSet, ImageSplit, open_image_set
from gan_core.evaluation.feature_network import FeatureNetwork

PIPELINE = "mnist"
NOISE = (8, 16, 32, 64)
HELD_OUT_HALF = "held-out images"


def measure(samples: int) -> dict[str, Any]:
    """All rows."""
    settings = common.shipped_settings(PIPELINE, evaluation__samples=samples)
    images = open_image_set(folder := common.prepared_images(settings.data))
    network = FeatureNetwork.load(common.prepared_network(folder, settings))
    halved, other_half = halves(images)
    evaluator = common.open_evaluator(halved, network, settings)
    shown = training_images(halved, samples)
    sets = {
        HELD_OUT_HALF: other_half,
        **{f"noise {deviation}": with_noise(shown, deviation) for deviation in NOISE},
        **{name: show(halved, samples) for name, (show, _) in BROKEN.items()},
    }
    rows = {}
    for name, pixels in sets.items():
        found = evaluator.evaluate_images(pixels).summary()
        rows[name] = {
            key: value for key, value in found.items() if not key.endswith("card") or key == "card"
        }
        common.tell(f"{name}: {found['frechet_distance']:.2f}")
    return {"pipeline": PIPELINE, "rows": rows}


def halves(images: ImageSet) -> tuple[ImageSet, np.ndarray]:
    """The set with every second held-out image, and the others."""
    held_out = images.held_out
    half = ImageSplit(np.array(held_out.images[::2]), held_out.labels[::2])
    description = {**images.description, "source": f"every second of {PIPELINE}"}
    changed = dataclasses.replace(
        images, held_out=half, sha256=f"half-{images.sha256}", description=description
    )
    return changed, np.array(held_out.images[1::2])


def main() -> None:
    """Measure and write the result."""
    options = common.arguments(__doc__).parse_args()
    common.report("evaluation_table", measure(500 if options.quick else 5000), quick=options.quick)


if __name__ == "__main__":
    main()
