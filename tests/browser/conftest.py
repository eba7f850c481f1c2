"""What the browser's tests share: running servers, the browser, and pictures of what went wrong."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.steps import VIEWPORT, open_browser
from tests.running_ui import RunningUi

BROWSER = pytest.StashKey[Browser]()


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningUi]:
    """The servers, in a fresh home, for all tests of a module."""
    running = RunningUi(tmp_path_factory.mktemp("browser") / "home")
    yield running
    if running.process.poll() is None:
        running.stop(signal.SIGTERM)


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with open_browser() as opened:
        request.config.stash[BROWSER] = opened
        yield opened
        del request.config.stash[BROWSER]


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page; what it opens is closed with it."""
    context = browser.new_context(viewport=VIEWPORT)
    yield context.new_page()
    context.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    """Beside a failure stand pictures of all open pages."""
    report = yield
    browser = item.config.stash.get(BROWSER, None)
    if report.failed and browser is not None:
        folder = Path(tempfile.mkdtemp(prefix="failed-pages-"))
        pages = [page for context in browser.contexts for page in context.pages]
        for number, page in enumerate(pages):
            picture = folder / f"{number}.png"
            page.screenshot(path=picture)
            report.sections.append((f"the page {page.url}", str(picture)))
    return report
