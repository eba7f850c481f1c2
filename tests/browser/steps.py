"""What a person does in Dagster's and MLflow's pages, step by step; tests and screenshots share it.

Elements are found as people find them: by their role and what they say.
"""

import contextlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from pipelines.settings_overrides import run_config
from tests.running_ui import RunningUi

CHROMIUM = "chromium"  # the distribution's
VIEWPORT = {"width": 1300, "height": 850}
RUN_SECONDS = 480  # far more than a machine at rest takes
PAGE_SECONDS = 30


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """The system's Chromium, without a window."""
    program = shutil.which(CHROMIUM)
    assert program, f"{CHROMIUM} is missing; apt-get install {CHROMIUM}"
    expect.set_options(timeout=PAGE_SECONDS * 1000)
    with sync_playwright() as playwright:
        # Its sandbox does not start as root, and only our own pages are opened.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_asset_graph(page: Page, dagster: str, pipeline: str) -> None:
    """The graph of a pipeline's assets."""
    page.goto(f"{dagster}/locations/gan_foundry/asset-groups/{pipeline}")
    expect(page.get_by_text("registered_model")).to_be_visible()


def materialize_button(page: Page) -> Locator:
    """The button that starts a run of what the page shows."""
    return page.get_by_role("button", name=re.compile("Materialize( all)?$"))


def materialize(page: Page, settings: Mapping[str, Any]) -> str:
    """Start a run of what the page shows, with settings of its own; ends on the run's page.

    Returns:
        The run's identifier.
    """
    button = materialize_button(page)
    if settings:
        button.click(modifiers=["Shift"])  # as its tooltip says, to add configuration
        launchpad = page.get_by_role("dialog")
        editor = launchpad.locator(".CodeMirror").first
        expect(editor).to_contain_text("overrides")
        editor.click()
        page.keyboard.press("Control+A")
        page.keyboard.insert_text(json.dumps(run_config(settings)))  # JSON is YAML
        expect(launchpad.get_by_text("No errors")).to_be_visible()
        launchpad.get_by_role("button", name="Materialize").click()
    else:
        button.click()
        page.get_by_text("View", exact=True).click()
    page.wait_for_url(re.compile("/runs/[0-9a-f-]{36}"))
    return page.url.rsplit("/", 1)[1]


def wait_for_run(ui: RunningUi, run_id: str) -> None:
    """Wait until a run has ended well, without a page: an open one takes half a core from it."""
    deadline = time.monotonic() + RUN_SECONDS
    while (status := ui.run_statuses()[run_id]) != "SUCCESS":
        assert status in ("QUEUED", "STARTING", "STARTED"), status
        assert time.monotonic() < deadline, status
        time.sleep(1)


def wait_for_status(page: Page, status: str) -> None:
    """Watch a run's page until it says so, by itself."""
    shown = page.get_by_text(re.compile(f"^({status}|Failure)$")).first
    expect(shown).to_be_visible(timeout=RUN_SECONDS * 1000)
    expect(shown).to_have_text(status)


def open_grid(page: Page, dagster: str, pipeline: str) -> Locator:
    """The grid of samples on the asset's page."""
    return open_picture(page, dagster, f"{pipeline}/samples", "grid")


def open_picture(page: Page, dagster: str, asset: str, key: str) -> Locator:
    """A picture in an asset's metadata, which lies behind a link on its page."""
    page.goto(f"{dagster}/assets/{asset}")
    metadata_row(page, key).get_by_text("[Show Markdown]").click()
    picture = page.get_by_role("dialog").locator("img")
    expect(picture).to_be_visible()
    return picture


def metadata_row(page: Page, key: str) -> Locator:
    """A line of the metadata on an asset's page."""
    return page.get_by_role("row").filter(has=page.get_by_text(key, exact=True))


def follow_link(page: Page, key: str, *, first: bool = True) -> Page:
    """Click on the address in an asset's metadata; it opens in a page of its own.

    Args:
        page: The asset's.
        key: Of the metadata.
        first: Whether it is this browser's first visit to MLflow.
    """
    with page.expect_popup() as opened:
        metadata_row(page, key).get_by_role("link").first.click()
    if first:
        close_assistant(opened.value)
    return opened.value


def close_assistant(page: Page) -> None:
    """MLflow opens its assistant's panel over the first page that a browser visits."""
    expect(page.get_by_text("Welcome to MLflow Assistant")).to_be_visible()
    page.get_by_role("button", name="Close", exact=True).click()
    expect(page.get_by_role("button", name="MLflow Assistant")).to_be_visible()  # opens it again


def show_curves(page: Page, metric: str) -> Locator:
    """The drawn lines of the metrics of this name, on the page of an MLflow run."""
    page.get_by_role("tab", name="Model metrics").click()
    page.get_by_placeholder("Search metric charts").fill(metric)
    lines = page.locator(".js-plotly-plot .scatterlayer .js-line")
    expect(lines.first).to_be_visible()
    return lines


def show_images(page: Page) -> Locator:
    """The pictures that were logged while training, on the page of an MLflow run."""
    page.get_by_role("tab", name="Model metrics").click()
    pictures = page.locator("img[src*='get-artifact']")
    page.get_by_placeholder("Search metric charts").fill("samples")
    expect(pictures.first).to_be_visible()
    pictures.first.scroll_into_view_if_needed()
    return pictures


def switch_on(page: Page, dagster: str, automation: str) -> None:
    """Switch a schedule or sensor on."""
    switch = _switch(page, dagster, automation)
    expect(switch.get_by_role("checkbox")).not_to_be_checked()
    switch.click()
    expect(switch.get_by_role("checkbox")).to_be_checked()


def switch_off(page: Page, dagster: str, automation: str) -> None:
    """Switch a schedule or sensor off again."""
    switch = _switch(page, dagster, automation)
    expect(switch.get_by_role("checkbox")).to_be_checked()
    switch.click()
    expect(switch.get_by_role("checkbox")).not_to_be_checked()


def _switch(page: Page, dagster: str, automation: str) -> Locator:
    page.goto(f"{dagster}/automation")
    row = page.get_by_role("link", name=automation).locator("xpath=ancestor::*[@data-index][1]")
    return row.locator("label[class*='formatSwitch']")  # the row has a box for selecting it, too


def open_queue_criteria(page: Page) -> Locator:
    """What a queued run waits for, behind the menu of its own page."""
    page.get_by_role("button", name="expand_more").first.click()
    page.get_by_role("menuitem", name="View queue criteria").click()
    return page.get_by_role("dialog").filter(has_text="Run queue criteria")


def terminate(page: Page) -> None:
    """End a run on its own page, and confirm."""
    page.get_by_role("button", name="Terminate").click()
    dialog = page.get_by_role("dialog")
    with page.expect_response(lambda answer: "terminateRuns" in (answer.request.post_data or "")):
        dialog.get_by_role("button", name=re.compile("Terminate")).click()
    page.reload()  # the dialog goes by itself only where the run has ended before "Done" is there
