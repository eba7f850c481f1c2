from pathlib import Path

import pytest

from gan_core.training.journal import Journal, read_journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def kinds(path: Path, start_byte: int = 0) -> list[str]:
    return [row["event"] for _, row in read_journal(path, start_byte)]


def test_what_is_written_is_read_at_once(path: Path) -> None:
    with Journal(path, 0) as journal:
        journal.write("progress", kimg=0.5, loss=1.25)
        assert [row for _, row in read_journal(path)] == [
            {"event": "progress", "kimg": 0.5, "loss": 1.25}
        ]


def test_there_is_nothing_to_read_before_the_training_begins(path: Path) -> None:
    assert kinds(path) == []


def test_a_line_that_is_half_written_is_left_for_the_next_reading(path: Path) -> None:
    with Journal(path, 0) as journal:
        journal.write("start")
    with path.open("ab") as file:
        file.write(b'{"event": "prog')
    (position, row), *others = read_journal(path)
    assert (row["event"], others) == ("start", [])
    with path.open("ab") as file:
        file.write(b'ress"}\n')
    assert kinds(path, position) == ["progress"]


def test_a_reader_goes_on_where_it_stopped(path: Path) -> None:
    with Journal(path, 0) as journal:
        journal.write("start")
        journal.write("grid", file="grösse.png")
        *_, (position, _) = read_journal(path)
        assert position == path.stat().st_size
        assert kinds(path, position) == []
        journal.write("end")
        assert kinds(path, position) == ["end"]


def test_a_resumed_journal_is_cut_back_to_its_checkpoint(path: Path) -> None:
    with Journal(path, 0) as journal:
        journal.write("start")
        length = journal.sync()
        journal.write("progress")
    with path.open("ab") as file:
        file.write(b'{"event": "half')
    with Journal(path, length) as journal:
        journal.write("end")
    assert kinds(path) == ["start", "end"]


def test_the_length_is_that_of_all_lines(path: Path) -> None:
    with Journal(path, 0) as journal:
        assert journal.sync() == 0
        journal.write("start", note="größe")
        assert journal.sync() == path.stat().st_size > 0
