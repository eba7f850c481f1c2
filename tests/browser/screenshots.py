"""The pictures of the README: `digits` as it is shipped, materialized in a fresh home.

Run it with `make screenshots`.
"""

import io
import re
import signal
import tempfile
from pathlib import Path

import PIL.Image
from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.conftest import PROJECT
from tests.running_ui import RunningUi

FOLDER = PROJECT / "docs" / "images"
SETTLE_MILLISECONDS = 2000  # until what moves has come to rest


def save(page: Page, name: str) -> None:
    """Write what the page shows, with few colours, which pages have anyway."""
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    with PIL.Image.open(io.BytesIO(page.screenshot())) as picture:
        few = picture.convert("RGB").quantize(255, dither=PIL.Image.Dither.NONE)
        few.save(FOLDER / f"{name}.png", optimize=True)


def take_pictures(ui: RunningUi, page: Page) -> None:
    """Go through the pages as the tests do."""
    steps.open_asset_graph(page, ui.dagster, "digits")
    steps.materialize(page, {})
    page.reload()  # without the note that the run was launched
    progress = page.get_by_text(re.compile(r"[1-9]\d\.\d of 150.0 kimg"))
    expect(progress.first).to_be_visible(timeout=steps.RUN_SECONDS * 1000)
    save(page, "run")
    steps.wait_for_status(page, "Success")
    steps.open_asset_graph(page, ui.dagster, "digits")
    save(page, "asset_graph")
    steps.open_grid(page, ui.dagster, "digits")
    save(page, "samples")
    page.goto(f"{ui.dagster}/assets/digits/registered_model")
    version = steps.follow_link(page, "registry_page")
    save(version, "registered_model")
    run = steps.follow_link(page, "mlflow_run")
    steps.show_curves(run, "loss|probability|distance")
    save(run, "curves")


def main() -> None:
    """Write all pictures."""
    with tempfile.TemporaryDirectory() as folder:
        ui = RunningUi(Path(folder) / "home")
        try:
            with steps.open_browser() as browser:
                take_pictures(ui, browser.new_page(viewport=steps.VIEWPORT))
        finally:
            ui.stop(signal.SIGTERM)


if __name__ == "__main__":
    main()
