"""The evaluation as one HTML page that needs nothing else: for a browser, a phone or MLflow."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan_core.data.image_set import ImageSet
from gan_core.evaluation import pictures
from gan_core.evaluation.curves import Panel, draw_panels, series
from gan_core.evaluation.report import PAGE_FILE, Evaluation
from gan_core.generator import ReleasedGenerator
from gan_core.image_grid import display_scale, png_bytes

TEMPLATE_FILE = "page.html.j2"


@dataclass(frozen=True)
class Picture:
    """A picture with what it shows.

    Attributes:
        source: A data address.
        caption: One sentence.
    """

    source: str
    caption: str


def write_page(
    folder: Path,
    title: str,
    evaluation: Evaluation,
    samples: np.ndarray,
    labels: np.ndarray | None,
    images: ImageSet,
    generator: ReleasedGenerator | None = None,
    journal: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write `evaluation.html`.

    Args:
        folder: Where to.
        title: Its heading.
        evaluation: What it shows.
        samples: The images that were judged, uint8, shape (n, height, width, channels).
        labels: Their classes, int64, shape (n,); None if they are not known.
        images: The real images.
        generator: For latent interpolation and truncation; None for images of unknown origin.
        journal: Rows of the training, for its curves.
    """
    import jinja2

    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        Path(__file__).with_name(TEMPLATE_FILE).read_text(encoding="utf-8")
    )
    page = template.render(
        title=title,
        sentence=evaluation.sentence,
        evaluation=evaluation,
        pictures=list(_pictures(evaluation, samples, labels, images, generator)),
        numbers=list(evaluation.number_rows()),
        extrapolated=f"{evaluation.extrapolated:.3g}",
        floor_extrapolated=f"{evaluation.floor_extrapolated:.3g}",
        curves=list(_curves(evaluation, journal)),
    )
    (folder / PAGE_FILE).write_text(page, encoding="utf-8")


def _pictures(
    evaluation: Evaluation,
    samples: np.ndarray,
    labels: np.ndarray | None,
    images: ImageSet,
    generator: ReleasedGenerator | None,
) -> Iterable[Picture]:
    ours, real = pictures.beside_real(samples, labels, images)
    yield _picture(ours, "Generated images, not chosen.")
    yield _picture(real, "Held-out real images.")
    pairs = pictures.nearest_pairs(evaluation.nearest_pairs, samples, images.train.images)
    if pairs is not None:
        yield _picture(
            pairs, "The samples nearest to training images (above), and those images (below)."
        )
    if generator is not None:
        yield _picture(pictures.interpolation(generator), "From one latent to another, row by row.")
        steps = ", ".join(f"{share:g}" for share in pictures.TRUNCATIONS)
        yield _picture(
            pictures.truncation_sweep(generator), f"The same latents with truncation {steps}."
        )


def _picture(pixels: np.ndarray, caption: str) -> Picture:
    content = png_bytes(pixels, display_scale(pixels))
    return Picture(f"data:image/png;base64,{base64.b64encode(content).decode()}", caption)


def _curves(evaluation: Evaluation, journal: Sequence[Mapping[str, Any]]) -> Iterable[Picture]:
    progress = [row for row in journal if row["event"] == "progress"]
    monitored = [row for row in journal if row["event"] == "evaluation"]
    if monitored:
        yield _curve(
            Panel({"distance to training images": series(monitored, "distance")}, logarithmic=True),
            "The distance while training.",
        )
    if progress:
        names = ("generator_loss", "discriminator_loss")
        yield _curve(
            Panel({name.replace("_", " "): series(progress, name) for name in names}),
            "Losses while training.",
        )
    points = [(point.samples, point.frechet_distance) for point in evaluation.curve]
    yield _curve(
        Panel({"Fréchet distance": points}, "samples"),
        "The distance at several sample counts: what is left of its bias.",
    )


def _curve(panel: Panel, caption: str) -> Picture:
    encoded = base64.b64encode(draw_panels([panel], "svg")).decode()
    return Picture(f"data:image/svg+xml;base64,{encoded}", caption)
