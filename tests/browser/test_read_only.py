"""`gan-foundry ui --read-only` beside another: the pages show all, and change nothing."""

import signal
from collections.abc import Iterator
from pathlib import Path

import filelock
import mlflow
import psutil
import pytest
from playwright.sync_api import Page, expect

from pipelines import tracking
from pipelines.services import LOG_FOLDER
from pipelines.ui import LOCK_FILE
from tests.browser import steps
from tests.browser.test_pages import LAUNCH
from tests.running_ui import RunningUi

pytestmark = pytest.mark.slow


@pytest.fixture
def ui(own_home: Path) -> Iterator[RunningUi]:
    """Read-only servers of a home with a daemon; MLflow's store has a run with a curve in it."""
    client: mlflow.MlflowClient = tracking.connect()
    run = client.create_run(client.create_experiment("digits"), run_name="a training")
    for step in range(3):
        client.log_metric(run.info.run_id, "generator_loss", 1.0 / (1 + step), step=step)
    with filelock.FileLock(own_home / LOCK_FILE):  # the home's daemon has another process
        running = RunningUi(own_home, "--read-only")
        yield running
        if running.process.poll() is None:
            running.stop(signal.SIGTERM)


def test_pages_show_all_and_change_nothing_and_ctrl_c_ends_all_servers(
    ui: RunningUi, page: Page
) -> None:
    servers = psutil.Process(ui.process.pid).children(recursive=True)
    assert not any("dagster-daemon" in " ".join(server.cmdline()) for server in servers)
    logs = {log.name for log in (ui.home / LOG_FOLDER).iterdir()}
    port = ui.dagster.rpartition(":")[2]
    assert logs == {f"mlflow-{port}.log", f"dagster-webserver-{port}.log"}

    steps.open_asset_graph(page, ui.dagster, "digits")
    button = steps.materialize_button(page)
    expect(button).to_be_disabled()
    refused = ui.graphql(LAUNCH.replace("__typename", "__typename ... on Error { message }"))
    assert refused["launchRun"]["__typename"] == "UnauthorizedError"
    assert ui.run_statuses() == {}

    experiments = ui.experiments()
    page.goto(f"{ui.mlflow}/#/experiments/{experiments['digits']}/runs")
    steps.close_assistant(page)
    page.get_by_role("link", name="a training").first.click()
    steps.show_curves(page, "generator_loss")
    answer = ui.ask_mlflow("experiments/delete", experiment_id=experiments["digits"])
    assert answer.status_code == 403
    assert "read-only" in answer.text
    assert ui.experiments() == experiments
    assert ui.stop(signal.SIGINT) == []
