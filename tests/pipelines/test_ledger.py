"""The ledger: what was moved, and how it heals."""

import pytest
from mlflow import MlflowClient

from pipelines import ledger
from pipelines.ledger import Aliases
from tests.pipelines.models import MODEL, register_versions

pytestmark = pytest.mark.usefixtures("mlflow_home")


@pytest.fixture
def client(mlflow_home: object) -> MlflowClient:
    return register_versions(3)


def record(client: MlflowClient, after: Aliases, version: int = 1) -> ledger.Move:
    return ledger.record(client, MODEL, "register", version, after, by="run 1", why="because")


def test_a_move_sets_the_aliases_and_is_kept(client: MlflowClient) -> None:
    first = record(client, Aliases(champion=1))
    second = ledger.record(
        client,
        MODEL,
        "register",
        2,
        Aliases(champion=2, previous=1),
        by="run 2",
        why="it is nearer",
        numbers={"difference": -0.5, "difference_high": float("nan")},
    )
    assert ledger.current_aliases(client, MODEL) == Aliases(champion=2, previous=1)
    assert (first.number, second.number) == (1, 2)
    assert (second.before, second.after) == (Aliases(champion=1), Aliases(champion=2, previous=1))
    read = ledger.read_moves(client, MODEL)
    assert read[0] == first
    assert read[1].model_copy(update={"numbers": {}}) == second.model_copy(update={"numbers": {}})
    assert read[1].numbers["difference"] == -0.5
    assert second.time.utcoffset() is not None


def test_an_alias_that_no_version_has_any_more_is_taken_away(client: MlflowClient) -> None:
    record(client, Aliases(champion=1, challenger=2))
    record(client, Aliases(champion=1))
    assert ledger.current_aliases(client, MODEL) == Aliases(champion=1)


def test_more_than_ten_moves_stay_in_their_order(client: MlflowClient) -> None:
    for number in range(12):
        record(client, Aliases(champion=1 + number % 2))
    assert [move.number for move in ledger.read_moves(client, MODEL)] == list(range(1, 13))


@pytest.mark.parametrize("done", range(4))
def test_a_move_that_was_cut_off_is_carried_out_by_whoever_comes_next(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    record(client, Aliases(champion=1, challenger=2))
    calls = 0

    def cut_off(name: str) -> None:
        work = getattr(MlflowClient, name)

        def until(self: MlflowClient, *arguments: str) -> None:
            nonlocal calls
            calls += 1
            if calls > 1 + done:  # the entry itself is the first call
                raise KeyboardInterrupt
            work(self, *arguments)

        patch.setattr(MlflowClient, name, until)

    after = Aliases(champion=2, previous=1)
    with monkeypatch.context() as patch:
        for name in ("set_registered_model_tag", "set_registered_model_alias"):
            cut_off(name)
        cut_off("delete_registered_model_alias")
        with pytest.raises(KeyboardInterrupt):
            record(client, after)
    assert ledger.settle(client, MODEL) == after
    assert ledger.current_aliases(client, MODEL) == after
    assert len(ledger.read_moves(client, MODEL)) == 2


def test_aliases_moved_by_other_means_stay_and_are_written_down(client: MlflowClient) -> None:
    record(client, Aliases(champion=2, previous=1))
    client.set_registered_model_alias(MODEL, "champion", "1")
    found = ledger.settle(client, MODEL)
    assert found == Aliases(champion=1, previous=1)
    last = ledger.read_moves(client, MODEL)[-1]
    assert (last.action, last.version, last.by) == ("outside", 1, "unknown")
    assert (last.before.champion, last.after.champion) == (2, 1)
    assert ledger.settle(client, MODEL) == found
    assert len(ledger.read_moves(client, MODEL)) == 2


def test_aliases_from_before_the_ledger_are_what_the_first_move_finds(client: MlflowClient) -> None:
    client.set_registered_model_alias(MODEL, "champion", "3")
    assert ledger.settle(client, MODEL) == Aliases(champion=3)
    assert record(client, Aliases(champion=1, previous=3)).before == Aliases(champion=3)
