"""What people see of a run: with a terminal, and where the output goes into a file."""

import datetime
import io
import re
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines import terminal
from pipelines.progress import ProgressEvent
from pipelines.terminal import (
    RunDisplay,
    age,
    ledger_table,
    print_result,
    result_lines,
    scores_table,
    versions_table,
)

CONTROL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class ShownText:
    """A console, and what it has shown so far."""

    def __init__(self, *, is_terminal: bool, width: int = 120) -> None:
        self._file = io.StringIO()
        self.console = Console(
            file=self._file, force_terminal=is_terminal, width=width, highlight=False
        )

    @property
    def raw(self) -> str:
        return self._file.getvalue()

    @property
    def text(self) -> str:
        """Without colours and movements of the cursor."""
        return CONTROL_CODES.sub("", self.raw)


@pytest.fixture(autouse=True)
def capable_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")


def training_event(kimg: float) -> ProgressEvent:
    row = {
        "kimg": kimg,
        "total_kimg": 20.0,
        "images_per_second": 2500.0,
        "generator_loss": 0.75,
        "discriminator_loss": 1.25,
    }
    return ProgressEvent("training", "generator", row)


FINISHED = ProgressEvent("stage_finished", "generator", {"reused": False, "seconds": 8.0})


def test_a_terminal_shows_a_live_bar_with_speed_losses_and_time_left() -> None:
    shown = ShownText(is_terminal=True)
    with RunDisplay(shown.console) as display:
        display(training_event(1.0))
        time.sleep(0.2)
        display(training_event(10.0))
        display(FINISHED)

    last_frame = [line for line in shown.text.splitlines() if "training" in line][-1]
    assert re.search("━{5,}", last_frame)
    assert "10/20 kimg  2500 img/s  G 0.750  D 1.250" in last_frame
    assert re.search(r"\d:\d\d:\d\d", last_frame), "no time left"


def test_a_loss_that_no_step_of_a_line_had_is_not_shown() -> None:
    shown = ShownText(is_terminal=True)
    event = training_event(1.0)
    del event.values["generator_loss"]
    with RunDisplay(shown.console) as display:
        display(event)
        time.sleep(0.2)
        display(FINISHED)
    assert "1/20 kimg  2500 img/s  D 1.250" in shown.text


def test_a_live_bar_stays_on_its_line_and_goes_when_its_stage_ends() -> None:
    shown = ShownText(is_terminal=True)
    with RunDisplay(shown.console) as display:
        for kimg in range(1, 20):
            display(training_event(kimg))
        display(FINISHED)

    before = shown.raw[: shown.raw.index("generator: done")]
    assert before.rindex("\x1b[2K") > before.rindex("img/s")  # the line of the bar is erased
    assert "✓ generator: done in 8.0 s\n" in shown.text
    assert "\x1b[?25h" in shown.raw  # and the cursor is visible again


def test_the_bar_of_a_training_does_not_stand_below_that_of_the_next() -> None:
    shown = ShownText(is_terminal=True)
    with RunDisplay(shown.console) as display:
        for trial in range(3):
            display(training_event(trial + 1.0))
            display(ProgressEvent("trial_finished", "trial", {"outcome": "complete", "text": "."}))
            before = len(shown.text)
        display(training_event(17.0))
        display(FINISHED)

    assert "17/20 kimg" in shown.text[before:]
    assert "3/20 kimg" not in shown.text[before:]


def test_a_display_left_during_training_gives_the_cursor_back() -> None:
    shown = ShownText(is_terminal=True)
    with pytest.raises(KeyboardInterrupt), RunDisplay(shown.console) as display:
        display(training_event(1.0))
        raise KeyboardInterrupt

    assert shown.raw.rindex("\x1b[?25h") > shown.raw.rindex("\x1b[?25l")


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = ShownText(is_terminal=False)
    with RunDisplay(shown.console) as display:
        for kimg in (1.0, 2.0, 3.0):
            display(training_event(kimg))
        monkeypatch.setattr(terminal, "PLAIN_LINE_SECONDS", 0.0)
        display(training_event(10.0))
        display(FINISHED)

    assert shown.raw.splitlines() == [
        "  training 1/20 kimg  2500 img/s  G 0.750  D 1.250  8 s left",
        "  training 10/20 kimg  2500 img/s  G 0.750  D 1.250  4 s left",
        "✓ generator: done in 8.0 s",
    ]


@pytest.mark.parametrize(("reused", "words"), [(True, "unchanged, reused"), (False, "done")])
def test_stages_are_named_when_they_start_and_end(reused: bool, words: str) -> None:
    shown = ShownText(is_terminal=False)
    with RunDisplay(shown.console) as display:
        display(ProgressEvent("stage_started", "samples"))
        display(ProgressEvent("stage_finished", "samples", {"reused": reused, "seconds": 0.25}))

    assert shown.raw.splitlines() == ["… samples", f"✓ samples: {words} in 0.2 s"]


def test_a_warning_is_shown_whole_and_as_it_is() -> None:
    shown = ShownText(is_terminal=False, width=20)
    text = "set aside [x].png: it does not decode as an image"
    with RunDisplay(shown.console) as display:
        display(ProgressEvent("warning", "raw_images", {"text": text}))
    assert shown.raw.splitlines() == [f"! {text}"]


def run_summary(folder: Path) -> dict[str, Any]:
    return {
        "model": "digits",
        "version": 3,
        "alias": "champion",
        "decision": "champion: there was none",
        "evaluation": {
            "frechet_distance": 1.234,
            "frechet_distance_ci": [1.1, 1.4],
            "floor": 0.567,
            "class_coverage": 0.9,
            "checks": [
                {"name": "collapse", "passed": False, "message": "recall is 0.1"},
                {"name": "memorisation", "passed": True, "message": "looked at"},
            ],
            "card": {"line": "Fréchet distance in classifier 01234567 (d = 64)"},
        },
        "samples": {"grid": str(folder / "grid.png")},
        "reused": ["raw_images"],
        "seconds": {"generator": 40.0, "total": 61.0},
    }


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_result_keeps_long_paths_whole(is_terminal: bool) -> None:
    folder = Path("/", *["a folder with a long name"] * 10)
    shown = ShownText(is_terminal=is_terminal, width=40)
    print_result(shown.console, run_summary(folder))

    lines = shown.text.splitlines()
    assert f"sample grid       {folder}/grid.png" in lines
    assert "Fréchet distance  1.23   (95 %: 1.10 to 1.40; floor, real against real: 0.57)" in lines
    assert "class coverage    90%" in lines
    assert "checks            failed (collapse: recall is 0.1)" in lines
    assert "registered        digits version 3 (champion)" in lines
    assert "decision          champion: there was none" in lines
    assert "time              61 s, of which training 40 s" in lines


def test_a_result_says_when_nothing_was_trained(tmp_path: Path) -> None:
    summary = run_summary(tmp_path) | {"reused": ["raw_images", "generator"]}
    assert ("time", "61 s, nothing was trained") in result_lines(summary)


@pytest.mark.parametrize("name", ["[old] runs", "runs [/2026]", "runs:warning:"])
def test_a_result_shows_paths_as_they_are(name: str) -> None:
    shown = ShownText(is_terminal=False)
    print_result(shown.console, run_summary(Path("/data") / name))

    assert f"sample grid       /data/{name}/grid.png" in shown.raw.splitlines()


@pytest.mark.parametrize(
    ("alias", "named"), [("champion", "digits"), ("challenger", "digits/3"), ("none", "digits/3")]
)
def test_a_result_names_a_model_that_can_be_sampled(alias: str, named: str) -> None:
    shown = ShownText(is_terminal=False)
    print_result(shown.console, {**run_summary(Path("/data")), "alias": alias})
    assert f"sample {named} -n 64 --seed 7 --out samples" in shown.text


def test_reasons_in_brackets_are_shown_as_they_are() -> None:
    why = "blurred [see #12] [/issues/12]"
    version = {"version": 1, "aliases": [], "frechet_distance": None, "frechet_distance_ci": None}
    version |= {"floor": None, "created": "2026-01-01T00:00:00+00:00", "vetoed": why}
    nothing: dict[str, None] = dict.fromkeys(("champion", "challenger", "previous"))
    move = {"time": "2026-01-01T00:00:00", "action": "veto", "version": 1, "by": "person [me]"}
    move |= {"why": why, "before": nothing, "after": nothing}
    shown = ShownText(is_terminal=False, width=200)
    shown.console.print(versions_table([{"name": "digits", "versions": [version]}]))
    shown.console.print(ledger_table([move]))
    assert shown.text.count(why) == 2
    assert "person [me]" in shown.text


def test_a_number_that_estimates_nothing_has_no_interval() -> None:
    shown = ShownText(is_terminal=False)
    summary = {
        "frechet_distance": 2.5,
        "frechet_distance_ci": [2.25, 2.75],
        "constant_share": 0.125,
        "constant_share_ci": [0.125, 0.125],
        "kid": None,
        "kid_ci": [None, None],
    }
    shown.console.print(scores_table(summary))
    assert "2.25 to 2.75" in shown.text
    assert "not finite to not finite" in shown.text
    (row,) = (line for line in shown.text.splitlines() if "constant share" in line)
    assert "0.125" in row
    assert " to " not in row


def test_a_result_without_classes_says_so() -> None:
    summary = run_summary(Path("/data"))
    summary["evaluation"]["class_coverage"] = None
    shown = ShownText(is_terminal=False)
    print_result(shown.console, summary)

    assert "class coverage    not measured" in shown.raw.splitlines()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(5, "5 s"), (61, "1 min"), (3600 * 5, "5 h"), (86400 * 40, "40 d")],
)
def test_an_age_is_told_in_its_largest_unit(seconds: int, shown: str) -> None:
    created = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
    assert age(created) == shown
