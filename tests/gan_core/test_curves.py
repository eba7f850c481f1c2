import io

import numpy as np
import PIL.Image
import pytest

from gan_core.evaluation.curves import PANEL_INCHES, Panel, draw_panels, series

DOTS_PER_INCH = 100


def pixels(*panels: Panel) -> np.ndarray:
    picture = PIL.Image.open(io.BytesIO(draw_panels(panels, "png"))).convert("L")
    return np.asarray(picture)


def lines(low: float, high: float) -> dict[str, list[tuple[float, float]]]:
    return {"distance to training images": [(0.0, high), (1500.0, low)]}


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize(
    ("low", "high"), [(0.00012, 0.00013), (0.7, 1.4), (-2.5, 30.0), (1.2, 1300.0), (2e4, 3e7)]
)
def test_no_number_at_an_axis_is_cut_off(low: float, high: float, logarithmic: bool) -> None:
    if logarithmic:
        low = abs(low)
    panel = Panel(lines(low, high), logarithmic=logarithmic)
    drawn = pixels(panel, panel)
    width, height = PANEL_INCHES
    assert drawn.shape == (height * DOTS_PER_INCH, 2 * width * DOTS_PER_INCH)
    edges = (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1])
    between = drawn[:, int(width * DOTS_PER_INCH)]
    for edge in (*edges, between):
        assert (edge == 255).all()
    assert (drawn < 255).mean() > 0.01


def test_numbers_at_a_logarithmic_axis_are_written_out() -> None:
    drawn = draw_panels([Panel(lines(1.2, 1300.0), logarithmic=True)], "svg").decode()
    assert "<!-- 1000 -->" in drawn


def test_a_line_has_the_points_of_the_rows_that_know_it() -> None:
    rows = [{"kimg": 1.0, "loss": 0.5}, {"kimg": 2.0}, {"kimg": 3.0, "loss": 0.25}]
    assert series(rows, "loss") == [(1.0, 0.5), (3.0, 0.25)]


def test_nothing_to_draw_is_an_empty_panel() -> None:
    assert pixels(Panel({"loss": []})).min() < 255
