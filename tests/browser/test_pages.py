"""An operator's day in the browser: one session of the servers, one whole run, in this order."""

import re
import signal
import time
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from gan_core.training.job import CHECKPOINT_FILE
from tests.browser import steps
from tests.browser.foreign_page import serve_foreign_page
from tests.e2e.conftest import run_command
from tests.e2e.test_digits import STAGES
from tests.faults.runs import trainers
from tests.gan_core.trainings import wait_until
from tests.running_ui import RunningUi

pytestmark = pytest.mark.slow

# What is learned in so short a time is nothing that would be released.
SHORT = {
    "training.kimg": 1,
    "training.logging_interval_kimg": 0.25,
    "training.threads": 1,  # another test runs beside this one
    "evaluation.checks.blocking": False,
    "feature_network.epochs": 2,
    "network.generator_channels": [32, 16, 16],
}
CANCEL_SECONDS = 20.0  # at rest it takes a few; then Dagster would leave the run alone
LAUNCH = """mutation { launchRun(executionParams: {
  selector: {repositoryLocationName: "gan_foundry", repositoryName: "__repository__",
             jobName: "digits"}, runConfigData: "{}", mode: "default"}) {
    __typename ... on LaunchRunSuccess { run { runId } } } }"""
TERMINATE = "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"
SCHEDULE_STATE = """{ scheduleOrError(scheduleSelector: {repositoryLocationName: "gan_foundry",
  repositoryName: "__repository__", scheduleName: "digits_schedule"}) {
    ... on Schedule { scheduleState { status } } } }"""


@pytest.fixture(scope="module")
def digits_run(ui: RunningUi, browser: Browser) -> str:
    """Materializes `digits` from the asset graph, and looks at the run's page when it is done."""
    page = browser.new_page(viewport=steps.VIEWPORT)
    steps.open_asset_graph(page, ui.dagster, "digits")
    run_id = steps.materialize(page, SHORT)
    page.goto("about:blank")
    steps.wait_for_run(ui, run_id)
    page.goto(f"{ui.dagster}/runs/{run_id}")
    steps.wait_for_status(page, "Success")
    page.close()
    return run_id


def test_materializing_from_the_asset_graph_ends_with_a_champion(
    ui: RunningUi, digits_run: str
) -> None:
    assert ui.run_statuses() == {digits_run: "SUCCESS"}
    (version,) = run_command(ui.home, "models", "digits", "--json").json["versions"]
    assert version["aliases"] == ["champion"]


def test_the_samples_are_seen_on_the_assets_page(
    ui: RunningUi, digits_run: str, page: Page
) -> None:
    grid = steps.open_grid(page, ui.dagster, "digits")
    assert grid.evaluate("image => image.naturalWidth") > 150  # 64 images of 16 pixels


def test_a_link_leads_to_the_curves_and_images_in_mlflow_and_back(
    ui: RunningUi, digits_run: str, page: Page
) -> None:
    page.goto(f"{ui.dagster}/assets/digits/generator")
    run = steps.follow_link(page, "mlflow_run")
    assert run.url.startswith(ui.mlflow)
    expect(run.get_by_text(f"{ui.dagster}/runs/{digits_run}"[:30])).to_be_visible()
    steps.show_curves(run, "generator_loss")
    assert steps.show_images(run).first.evaluate("image => image.naturalWidth") > 150


def test_a_link_leads_to_the_registered_champion(
    ui: RunningUi, digits_run: str, page: Page
) -> None:
    page.goto(f"{ui.dagster}/assets/digits/registered_model")
    version = steps.follow_link(page, "registry_page")
    assert version.url == f"{ui.mlflow}/#/models/digits/versions/1"
    expect(version.get_by_text("champion", exact=False).first).to_be_visible()


def test_a_run_of_the_command_line_finds_all_of_it_done(ui: RunningUi, digits_run: str) -> None:
    settings = [part for key, value in SHORT.items() for part in ("--set", f"{key}={value}")]
    arguments = ["run", "digits", *settings, "--json"]
    again = run_command(ui.home, *arguments, PYTHONPROFILEIMPORTTIME="1")
    assert again.status == 0, again.stderr
    assert again.stderr.count("unchanged, reused") == len(again.json["reused"]) == len(STAGES)
    lines = again.stderr.splitlines()
    loaded = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "mlflow" in loaded
    assert not {"torch", "matplotlib", "sklearn"} & loaded  # seconds that only work needs
    assert (again.json["version"], again.json["alias"]) == (1, "champion")
    runs = ui.ask_mlflow("runs/search", experiment_ids=[ui.experiments()["digits"]]).json()["runs"]
    assert [run["info"]["run_id"] for run in runs] == [again.json["mlflow_run_id"]]
    assert ui.run_statuses() == {digits_run: "SUCCESS", again.json["dagster_run_id"]: "SUCCESS"}


def test_the_servers_can_be_reached_from_their_own_machine_only(ui: RunningUi) -> None:
    listening = ui.listening()
    assert {address for address, _ in listening} == {"127.0.0.1"}
    ports = {urlsplit(address).port for address in (ui.dagster, ui.mlflow)}
    assert ports <= {port for _, port in listening}


def test_a_page_of_another_port_changes_and_learns_nothing(
    ui: RunningUi, digits_run: str, page: Page
) -> None:
    scratch = ui.ask_mlflow("experiments/create", name="scratch").json()["experiment_id"]
    deletion = f"{ui.mlflow}/ajax-api/2.0/mlflow/experiments/delete"
    delete_run = f'mutation {{ deletePipelineRun(runId: "{digits_run}") {{ __typename }} }}'
    before = (ui.run_statuses(), ui.experiments())
    assert "scratch" in before[1]
    with serve_foreign_page(
        dagster=ui.dagster,
        mlflow=ui.mlflow,
        mutations=[LAUNCH, delete_run],
        deletion={"address": deletion, "values": {"experiment_id": scratch}},
    ) as address:
        page.goto(address)
        expect(page).to_have_title(re.compile("^answered"))
    assert page.title() == "answered: nothing"
    assert (ui.run_statuses(), ui.experiments()) == before

    # They were refused for where they came from: a program is answered.
    assert ui.ask_mlflow("experiments/delete", experiment_id=scratch).ok
    assert "scratch" not in ui.experiments()
    done = requests.post(f"{ui.dagster}/graphql", json={"query": delete_run}, timeout=30).json()
    assert done == {"data": {"deletePipelineRun": {"__typename": "DeletePipelineRunSuccess"}}}


def test_the_schedule_is_switched_on_in_the_pages(ui: RunningUi, page: Page) -> None:
    steps.switch_on(page, ui.dagster, "digits_schedule")
    wait_until(
        lambda: (
            ui.graphql(SCHEDULE_STATE)["scheduleOrError"]["scheduleState"]["status"] == "RUNNING"
        ),
        "the schedule's start",
    )


def test_a_training_lets_others_wait_and_terminated_in_the_page_leaves_a_checkpoint_and_no_process(
    ui: RunningUi, digits_run: str, page: Page
) -> None:
    page.goto(f"{ui.dagster}/assets/digits/generator")
    run_id = steps.materialize(page, {**SHORT, "training.kimg": 500})
    expect(page.get_by_text(re.compile("of 500.0 kimg")).first).to_be_visible(
        timeout=steps.RUN_SECONDS * 1000
    )
    assert len(trainers(ui.home)) == 1

    waiting = ui.graphql(LAUNCH)["launchRun"]["run"]["runId"]
    other = page.context.new_page()
    other.goto(f"{ui.dagster}/runs/{waiting}")
    expect(steps.open_queue_criteria(other)).to_contain_text(re.compile("pool.*gpu", re.I | re.S))
    assert ui.run_statuses()[waiting] == "QUEUED"
    ui.graphql(TERMINATE, id=waiting)
    other.close()

    steps.terminate(page)
    start = time.monotonic()
    while ui.run_statuses()[run_id] != "CANCELED":
        assert time.monotonic() - start < CANCEL_SECONDS, ui.run_statuses()
        time.sleep(0.2)
    steps.wait_for_status(page, "Canceled")
    assert trainers(ui.home) == []
    assert len(list(ui.home.glob(f"store/digits/generator/*.partial/{CHECKPOINT_FILE}"))) == 1


def test_sigterm_ends_all_servers_while_pages_are_open(ui: RunningUi, page: Page) -> None:
    page.goto(f"{ui.dagster}/runs")
    expect(page.get_by_text("Success").first).to_be_visible()
    assert ui.stop(signal.SIGTERM) == []
