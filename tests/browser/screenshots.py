"""The pictures of the README, from a run of `digits` to a schedule that promotes a better model.

It is a copy of the project that runs, in a fresh home: the first run has a small budget, the
scheduled one that of the shipped file, in which the schedule alone is changed, to one of every
minute. Run it with `make screenshots`.
"""

import io
import re
import signal
import tempfile
import time
from pathlib import Path

import PIL.Image
from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.conftest import PROJECT, copy_project
from tests.e2e.conftest import run_command
from tests.running_ui import RunningUi

FOLDER = PROJECT / "docs" / "images"
FIRST_KIMG = 30
SETTLE_MILLISECONDS = 2000  # until what moves has come to rest
RELOAD = """mutation { reloadRepositoryLocation(repositoryLocationName: "gan_foundry") {
  __typename } }"""


def save(page: Page, name: str) -> None:
    """Write what the page shows, with few colours, which pages have anyway."""
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    with PIL.Image.open(io.BytesIO(page.screenshot())) as picture:
        few = picture.convert("RGB").quantize(255, dither=PIL.Image.Dither.NONE)
        few.save(FOLDER / f"{name}.png", optimize=True)


def take_pictures(ui: RunningUi, page: Page) -> None:
    """Go through the pages of a first run as the tests do."""
    steps.open_asset_graph(page, ui.dagster, "digits")
    run_id = steps.materialize(page, {"training.kimg": FIRST_KIMG})
    page.reload()  # without the note that the run was launched
    progress = page.get_by_text(re.compile(rf"[1-9]\d\.\d of {FIRST_KIMG}.0 kimg"))
    expect(progress.first).to_be_visible(timeout=steps.RUN_SECONDS * 1000)
    save(page, "run")
    page.goto("about:blank")
    steps.wait_for_run(ui, run_id)
    steps.open_asset_graph(page, ui.dagster, "digits")
    save(page, "asset_graph")
    steps.open_grid(page, ui.dagster, "digits")
    save(page, "samples")
    page.goto(f"{ui.dagster}/assets/digits/registered_model")
    version = steps.follow_link(page, "registry_page")
    save(version, "registered_model")
    run = steps.follow_link(page, "mlflow_run", first=False)
    steps.show_curves(run, "generator_loss")
    save(run, "curves")


def take_pictures_of_the_schedule(ui: RunningUi, page: Page, project: Path) -> None:
    """Switch the schedule on, and look at what it does."""
    first = set(ui.run_statuses())
    file = project / "pipelines" / "defs" / "digits" / "defs.yaml"
    text = file.read_text()
    changed = text.replace('"0 3 * * 1"', '"* * * * *"')
    assert '"* * * * *"' in changed
    file.write_text(changed)
    ui.graphql(RELOAD)
    steps.switch_on(page, ui.dagster, "digits_schedule")
    save(page, "schedule")
    while not set(ui.run_statuses()) - first:
        time.sleep(1)
    steps.switch_off(page, ui.dagster, "digits_schedule")
    page.goto("about:blank")
    (scheduled, *_) = set(ui.run_statuses()) - first
    steps.wait_for_run(ui, scheduled)
    versions = run_command(ui.home, "models", "digits", "--json").json["versions"]
    assert [(v["version"], v["aliases"]) for v in versions] == [
        (2, ["champion"]),
        (1, ["previous"]),
    ]
    steps.open_picture(page, ui.dagster, "digits/registered_model", "candidate_and_champion")
    save(page, "promotion")


def main() -> None:
    """Write all pictures."""
    with tempfile.TemporaryDirectory() as folder:
        project = copy_project(Path(folder) / "project")
        ui = RunningUi(Path(folder) / "home", project=project)
        try:
            with steps.open_browser() as browser:
                page = browser.new_page(viewport=steps.VIEWPORT)
                take_pictures(ui, page)
                take_pictures_of_the_schedule(ui, page, project)
        finally:
            ui.stop(signal.SIGTERM)


if __name__ == "__main__":
    main()
