"""What a person does to a model's aliases."""

import itertools
import json
import os
import re
import subprocess
import sys

import dagster as dg
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from gan_core.errors import FoundryError
from pipelines import ledger, promotion
from pipelines.alias_job import build_alias_job
from pipelines.cli import main
from pipelines.home import PROJECT
from pipelines.ledger import Aliases
from pipelines.registry import BLESSED_TAG, VETOED_TAG
from tests.pipelines.models import MODEL, register_versions

pytestmark = pytest.mark.usefixtures("mlflow_home")


@pytest.fixture
def client(mlflow_home: object) -> MlflowClient:
    return register_versions(4)


def aliases(client: MlflowClient) -> Aliases:
    return ledger.current_aliases(client, MODEL)


def promote_all(*versions: int) -> None:
    for version in versions:
        promotion.promote(MODEL, version, f"{version} is better")


def test_promoting_moves_champion_and_previous_and_says_who_and_why(client: MlflowClient) -> None:
    promote_all(1)
    move = promotion.promote(MODEL, 2, "sharper")
    assert aliases(client) == Aliases(champion=2, previous=1)
    assert (move.action, move.version, move.why) == ("promote", 2, "sharper")
    assert re.fullmatch(r"person .+@.+", move.by)


def test_the_challenger_that_is_promoted_is_challenger_no_more(client: MlflowClient) -> None:
    for challenger, expected in ((2, None), (3, 3)):
        before = Aliases(champion=1, challenger=challenger)
        assert promotion.after_promotion(before, 2).challenger == expected


def test_a_user_without_a_name_is_told_by_number(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(ledger.getpass, "getuser", nameless)
    promote_all(1)
    by = promotion.promote(MODEL, 2, "sharper").by
    assert re.fullmatch(rf"person uid {os.getuid()}@.+", by)


def test_who_cannot_be_told_leaves_nothing_half_moved(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> str:
        raise RuntimeError

    promote_all(1, 2)
    monkeypatch.setattr(ledger, "person", broken)
    with pytest.raises(RuntimeError):
        promotion.rollback(MODEL, "blurred")
    assert VETOED_TAG not in client.get_model_version(MODEL, "2").tags


def test_without_a_champion_the_previous_one_is_named(client: MlflowClient) -> None:
    promote_all(1, 2)
    client.delete_registered_model_alias(MODEL, "champion")
    with pytest.raises(FoundryError, match=f"`gan-foundry promote {MODEL} 1` makes the previous"):
        promotion.rollback(MODEL, "blurred")


def test_rolling_back_goes_the_way_back_step_by_step(client: MlflowClient) -> None:
    promote_all(1, 2, 3)
    move = promotion.rollback(MODEL, "blurred")
    assert (move.action, move.version) == ("rollback", 2)
    assert aliases(client) == Aliases(champion=2, previous=1)
    assert client.get_model_version(MODEL, "3").tags[VETOED_TAG] == "blurred"
    promotion.rollback(MODEL, "blurred too")
    assert aliases(client) == Aliases(champion=1)
    with pytest.raises(FoundryError, match=r"tiny has no previous champion to go back to"):
        promotion.rollback(MODEL, "again")


def test_rolling_back_does_not_lead_to_a_version_that_is_gone(client: MlflowClient) -> None:
    promote_all(1, 2, 3)
    client.delete_model_version(MODEL, "1")
    promotion.rollback(MODEL, "blurred")
    assert aliases(client) == Aliases(champion=2)


def test_rolling_back_leads_past_a_vetoed_version(client: MlflowClient) -> None:
    promote_all(1, 2, 3, 4)
    promotion.veto(MODEL, 2, "a class is missing")
    promotion.rollback(MODEL, "blurred")
    assert aliases(client) == Aliases(champion=3, previous=1)
    promotion.rollback(MODEL, "blurred")
    assert aliases(client) == Aliases(champion=1)


def test_rolling_back_never_leads_to_the_same_version_twice(client: MlflowClient) -> None:
    promote_all(1, 2, 1, 3)
    promotion.veto(MODEL, 2, "a class is missing")
    promotion.rollback(MODEL, "blurred")
    assert aliases(client) == Aliases(champion=1)
    with pytest.raises(FoundryError, match=r"tiny has no previous champion to go back to"):
        promotion.rollback(MODEL, "again")
    assert VETOED_TAG not in client.get_model_version(MODEL, "1").tags


def test_a_champion_that_is_its_own_predecessor_is_not_vetoed(client: MlflowClient) -> None:
    promote_all(2, 1)
    client.set_registered_model_alias(MODEL, "previous", "1")  # as earlier versions could leave it
    with pytest.raises(FoundryError, match=r"tiny has no previous champion to go back to"):
        promotion.rollback(MODEL, "blurred")
    assert VETOED_TAG not in client.get_model_version(MODEL, "1").tags


def test_rolling_back_to_a_version_that_was_never_shown_to_load_is_refused(
    client: MlflowClient,
) -> None:
    promote_all(1, 2)
    client.delete_model_version_tag(MODEL, "1", BLESSED_TAG)
    with pytest.raises(FoundryError, match=r"tiny version 1 was never shown to load"):
        promotion.rollback(MODEL, "blurred")
    assert aliases(client) == Aliases(champion=2, previous=1)


def test_a_reason_is_kept_in_one_line_in_any_script(client: MlflowClient) -> None:
    move = promotion.promote(MODEL, 1, "理由\u3000です,\n gut\u00a0so \U0001f469\u200d\U0001f680\n")
    assert move.why == "理由\u3000です,  gut\u00a0so \U0001f469\u200d\U0001f680"


def test_a_veto_takes_the_alias_and_promoting_lifts_it(client: MlflowClient) -> None:
    promote_all(1, 2)
    promotion.veto(MODEL, 1, "a class is missing")
    assert aliases(client) == Aliases(champion=2)
    assert client.get_model_version(MODEL, "1").tags[VETOED_TAG] == "a class is missing"
    promote_all(1)
    assert VETOED_TAG not in client.get_model_version(MODEL, "1").tags
    assert aliases(client) == Aliases(champion=1, previous=2)


def test_what_cannot_be_is_a_sentence_and_changes_nothing(client: MlflowClient) -> None:
    promote_all(1)
    moves = ledger.read_moves(client, MODEL)
    with pytest.raises(FoundryError, match=r"tiny version 1 is the champion already\."):
        promotion.promote(MODEL, 1, "why not")
    with pytest.raises(FoundryError, match=r"tiny version 1 is the champion; `gan-foundry rollb"):
        promotion.veto(MODEL, 1, "no")
    for why, told in (
        (" ", "why is empty; say in one sentence"),
        ("x" * 1001, r"why has 1001 characters, but the ledger takes 1000"),
        ("sch\udce4rfer", r"why is 'sch\\udce4rfer', which holds characters that cannot be shown"),
    ):
        with pytest.raises(FoundryError, match=told):
            promotion.veto(MODEL, 2, why)
    for act in (promotion.promote, promotion.veto):
        with pytest.raises(FoundryError, match=r"tiny has no version 9; it has 1, 2, 3, 4\."):
            act(MODEL, 9, "no")
        with pytest.raises(FoundryError, match=r"no registered model 'giant'; registered are tiny"):
            act("giant", 1, "no")
    assert ledger.read_moves(client, MODEL) == moves


def test_a_version_that_was_never_shown_to_load_is_not_promoted() -> None:
    client = register_versions(1, blessed=False)
    with pytest.raises(FoundryError, match=r"never shown to load without this project; materiali"):
        promotion.promote(MODEL, 1, "hope")
    assert aliases(client) == Aliases()


AT_ONCE = """
import sys
from pipelines import promotion
for _ in range(5):
    for version in (int(text) for text in sys.argv[1:]):
        promotion.promote("tiny", version, "mine")
"""


def test_two_who_promote_at_once_leave_one_history(client: MlflowClient) -> None:
    command = [sys.executable, "-c", AT_ONCE]
    both = [subprocess.Popen([*command, *own], cwd=PROJECT) for own in (["1", "2"], ["3", "4"])]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    moves = ledger.read_moves(client, MODEL)
    assert [move.number for move in moves] == list(range(1, 21))
    for earlier, later in itertools.pairwise(moves):
        assert later.before == earlier.after
        assert later.after == Aliases(champion=later.version, previous=earlier.version)
    assert aliases(client) == moves[-1].after


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_line_promotes_vetoes_rolls_back_and_shows_it(client: MlflowClient) -> None:
    assert json.loads(invoke("promote", MODEL, "1", "--why", "first", "--json"))["version"] == 1
    assert "promote version 2 (champion 1 → 2, previous - → 1)" in invoke(
        "promote", MODEL, "2", "--why", "second"
    )
    invoke("veto", MODEL, "3", "--why", "grey")
    invoke("rollback", MODEL)
    shown = json.loads(invoke("models", MODEL, "--json"))
    versions = {row["version"]: row for row in shown["versions"]}
    assert versions[1]["aliases"] == ["champion"]
    assert (versions[2]["vetoed"], versions[3]["vetoed"]) == ("rolled back", "grey")
    assert [move["action"] for move in shown["ledger"]] == [
        *("promote", "promote", "veto", "rollback")
    ]
    table = invoke("models", MODEL)
    assert "grey" in table
    assert "rolled back" in " ".join(table.split())


def test_promoting_without_a_reason_is_refused(client: MlflowClient) -> None:
    result = CliRunner().invoke(main, ["promote", MODEL, "1"])
    assert result.exit_code == 2
    assert "--why" in result.output
    assert aliases(client) == Aliases()


def launch(**values: object) -> dg.ExecuteInProcessResult:
    return build_alias_job(MODEL).execute_in_process(
        run_config={
            "ops": {f"move_{MODEL}_aliases": {"config": values}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        raise_on_error=False,
    )


def test_a_move_that_was_made_is_not_made_again_when_its_run_dies() -> None:
    # The instance's settings start other runs again.
    assert build_alias_job(MODEL).tags["dagster/max_retries"] == "0"


def test_the_same_is_done_by_a_job_in_dagsters_pages(client: MlflowClient) -> None:
    done = launch(action="PROMOTE", version=2, why="as seen in the pages")
    assert done.success
    last = ledger.read_moves(client, MODEL)[-1]
    assert (last.by, last.why) == (f"run {done.run_id}", "as seen in the pages")
    assert launch(action="PROMOTE", version=3, why="better").success
    assert launch(action="VETO", version=4, why="worse").success
    assert launch(action="ROLLBACK", why="no").success
    assert aliases(client) == Aliases(champion=2)


def test_a_job_that_cannot_do_it_fails_with_the_sentence(client: MlflowClient) -> None:
    for values, sentence in (
        ({"action": "VETO", "why": "x"}, "veto needs a version, but none was given; add it."),
        ({"action": "PROMOTE", "version": 9, "why": "x"}, "tiny has no version 9"),
    ):
        failed = launch(**values)
        assert not failed.success
        (event,) = failed.get_step_failure_events()
        assert sentence in event.step_failure_data.user_failure_data.description
