"""Lines over kimg or counts, drawn as the pages show them.

The margins are fixed: matplotlib's own layout draws every figure twice, and a run draws four.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

PANEL_INCHES = (4.5, 3.0)
# Left, with the numbers; bottom; right; top, with their power of 10.
MARGINS_INCHES = (0.65, 0.5, 0.15, 0.25)
MARKED_POINTS = 30  # lines of fewer show their points


@dataclass(frozen=True)
class Panel:
    """Lines that share their axes.

    Attributes:
        lines: The points of each line, by its name.
        horizontal: What the horizontal axis is.
        logarithmic: Whether the vertical axis is.
    """

    lines: Mapping[str, Sequence[tuple[float, float]]]
    horizontal: str = "kimg"
    logarithmic: bool = False


def series(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """A number of a journal's rows over their kimg, from those rows that have it."""
    return [(row["kimg"], row[name]) for row in rows if name in row]


def draw_panels(panels: Sequence[Panel], file_format: Literal["png", "svg"]) -> bytes:
    """A picture of panels side by side, each of `PANEL_INCHES`."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    width, height = PANEL_INCHES
    left, bottom, right, top = MARGINS_INCHES
    figure = Figure(figsize=(len(panels) * width, height))
    for number, panel in enumerate(panels):
        axes = figure.add_axes(
            (
                (number * width + left) / (len(panels) * width),
                bottom / height,
                (width - left - right) / (len(panels) * width),
                (height - bottom - top) / height,
            )
        )
        for name, points in panel.lines.items():
            marker = "." if len(points) < MARKED_POINTS else None
            axes.plot(*zip(*points, strict=True), label=name, marker=marker)
        axes.set_xlabel(panel.horizontal)
        if any(panel.lines.values()):
            axes.legend()
        if panel.logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(LogFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter())
        else:
            axes.ticklabel_format(axis="y", scilimits=(-2, 4))
    buffer = io.BytesIO()
    metadata = {"Date": None} if file_format == "svg" else None
    figure.savefig(buffer, format=file_format, dpi=100, metadata=metadata)
    return buffer.getvalue()
