"""What a run shows in a terminal: the stages as they pass, the training as it goes, the result."""

import datetime
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from pipelines.progress import ProgressEvent

if TYPE_CHECKING:
    from pipelines.housekeeping import Collection

PLAIN_LINE_SECONDS = 5.0


class RunDisplay:
    """Shows progress events: with a live bar in a terminal, else a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("  training"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._last_line = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_bar()

    def _stop_bar(self) -> None:
        if self._task is not None:
            self._progress.stop()
            self._progress.remove_task(self._task)  # the next training has a bar of its own
            self._task = None

    def __call__(self, event: ProgressEvent) -> None:
        """Show one event."""
        if event.kind == "stage_started":
            self._console.print(f"[dim]…[/] {event.stage}")
        elif event.kind == "waiting":
            self._console.print("  waiting for the device: another training has it")
        elif event.kind == "stage_finished":
            self._stop_bar()
            note = "unchanged, reused" if event.values["reused"] else "done"
            seconds = event.values["seconds"]
            self._console.print(f"[green]✓[/] {event.stage}: {note} in {seconds:.1f} s")
        elif event.kind == "trial_started":
            self._console.print(f"[dim]…[/] {escape(event.values['text'])}", soft_wrap=True)
        elif event.kind == "trial_finished":
            self._stop_bar()
            mark = "[green]✓[/]" if event.values["outcome"] == "complete" else "[yellow]✗[/]"
            self._console.print(f"{mark} {escape(event.values['text'])}", soft_wrap=True)
        elif event.kind == "warning":
            self._console.print(f"[yellow]![/] {escape(event.values['text'])}", soft_wrap=True)
        elif event.kind == "note":
            self._console.print(f"  {escape(event.values['text'])}", soft_wrap=True)
        else:
            self._show_training(event.values)

    def _show_training(self, row: dict[str, Any]) -> None:
        losses = {"G": row.get("generator_loss"), "D": row.get("discriminator_loss")}
        text = "  ".join(
            [
                f"{row['kimg']:.0f}/{row['total_kimg']:.0f} kimg",
                f"{row['images_per_second']:.0f} img/s",
                *(f"{who} {loss:.3f}" for who, loss in losses.items() if loss is not None),
            ]
        )
        if self._console.is_terminal:
            if self._task is None:
                self._progress.start()
                self._task = self._progress.add_task("", total=row["total_kimg"], text=text)
            self._progress.update(self._task, completed=row["kimg"], text=text)
        elif time.monotonic() - self._last_line > PLAIN_LINE_SECONDS:
            self._last_line = time.monotonic()
            left = (row["total_kimg"] - row["kimg"]) * 1000 / row["images_per_second"]
            self._console.print(f"  training {text}  {left:.0f} s left")


def error_console() -> Console:
    """A console on standard error, so that standard output stays for results."""
    return Console(file=sys.stderr, highlight=False, emoji=False)


def program() -> str:
    """This command as a person here would type it."""
    path = Path(sys.executable).with_name("gan-foundry")
    if shutil.which("gan-foundry") == str(path):
        return "gan-foundry"
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def result_lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The end of a run, for people: names and values."""
    evaluation, stages = summary["evaluation"], summary["seconds"]
    distance, floor = evaluation["frechet_distance"], evaluation["floor"]
    low, high = evaluation["frechet_distance_ci"]
    coverage = evaluation["class_coverage"]
    failed = [f"{c['name']}: {c['message']}" for c in evaluation["checks"] if not c["passed"]]
    model = summary["model"]
    training = (
        "nothing was trained"
        if "generator" in summary["reused"]
        else f"of which training {stages['generator']:.0f} s"
    )
    named = model if summary["alias"] == "champion" else f"{model}/{summary['version']}"
    return [
        (
            "Fréchet distance",
            f"{distance:.2f}   (95 %: {low:.2f} to {high:.2f}; floor, real against real: "
            f"{floor:.2f})",
        ),
        ("measured as", evaluation["card"]["line"]),
        ("class coverage", "not measured" if coverage is None else f"{coverage:.0%}"),
        ("checks", f"failed ({'; '.join(failed)})" if failed else "all hold"),
        ("sample grid", summary["samples"]["grid"]),
        ("registered", f"{model} version {summary['version']} ({summary['alias']})"),
        ("decision", summary["decision"]),
        ("time", f"{stages['total']:.0f} s, {training}"),
        ("next", f"{program()} sample {named} -n 64 --seed 7 --out samples"),
        ("", f"{program()} ui"),
    ]


def print_result(console: Console, summary: dict[str, Any]) -> None:
    """Show the end of a run; long lines are left whole, so that paths can be copied."""
    console.print()
    for name, value in result_lines(summary):
        console.print(Text.assemble((f"{name:<18}", "bold"), value), soft_wrap=True)


def versions_table(models: list[dict[str, Any]]) -> Table:
    """Registered models and their versions."""
    names = ("model", "version", "aliases", "Fréchet distance", "floor", "age")
    table = Table(*(Column(name, no_wrap=True) for name in names), "vetoed")
    for model in models:
        for entry in model["versions"]:
            distance, floor = entry["frechet_distance"], entry["floor"]
            interval = entry["frechet_distance_ci"]
            cells = (
                model["name"],
                str(entry["version"]),
                ", ".join(entry["aliases"]),
                ("" if distance is None else f"{distance:.2f}")
                + ("" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})"),
                "" if floor is None else f"{floor:.2f}",
                age(datetime.datetime.fromisoformat(entry["created"])),
                entry["vetoed"] or "",
            )
            table.add_row(*map(Text, cells))  # a reason in brackets is no markup
    return table


def ledger_table(moves: list[dict[str, Any]]) -> Table:
    """Every move of a model's aliases, oldest first."""
    table = Table("when (UTC)", "what", "by", "why")
    for move in moves:
        when = str(move["time"])[:16].replace("T", " ")
        table.add_row(*map(Text, (when, move_sentence(move), move["by"], move["why"])))
    return table


def move_sentence(move: dict[str, Any]) -> str:
    """What a move did to the aliases."""
    changes = [
        f"{name} {move['before'][name] or '-'} → {number or '-'}"
        for name, number in move["after"].items()
        if number != move["before"][name]
    ]
    return f"{move['action']} version {move['version']} ({', '.join(changes) or 'nothing moved'})"


def age(created: datetime.datetime) -> str:
    """How long ago something was, in the largest unit."""
    seconds = (datetime.datetime.now(datetime.UTC) - created).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def collection_table(found: "Collection") -> Table:
    """What goes of each pipeline."""
    table = Table("pipeline", "versions", "MLflow runs", "Dagster runs", "folders", "MB")
    for plan in found.plans:
        if plan.busy:
            table.add_row(plan.pipeline, plan.busy)
        else:
            counts = (plan.mlflow_runs, plan.dagster_runs, plan.folders)
            table.add_row(
                plan.pipeline,
                ", ".join(map(str, plan.versions)) or "-",
                *(str(len(part)) for part in counts),
                f"{plan.freed_bytes / 1e6:.0f}",
            )
    return table


def trials_table(summary: dict[str, Any], most: int = 10) -> Table:
    """The best trials of a sweep, the nearest to the training images first."""

    def rank(trial: dict[str, Any]) -> tuple[bool, float]:
        distance = trial["distance"]
        return trial["outcome"] != "complete", float("inf") if distance is None else distance

    names = summary["parameters"]
    rows = [
        (
            str(trial["trial"]),
            trial["outcome"],
            "" if trial["distance"] is None else f"{trial['distance']:.3f}",
            f"{trial['kimg']:g}",
            f"{trial['seconds']:.0f}",
            *(str(trial["values"][name]) for name in names),
        )
        for trial in sorted(summary["trials"], key=rank)[:most]
    ]
    headers = ["trial", "outcome", "distance", "kimg", "s"]
    headers += [name.partition(".")[2].replace("_", " ") for name in names]
    table = Table(*(Column(header, overflow="fold") for header in headers))
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def scores_table(summary: dict[str, Any]) -> Table:
    """The numbers of an evaluation with their intervals."""
    table = Table("number", "value", "95 % interval")
    for name, value in summary.items():
        interval = summary.get(f"{name}_ci")
        if interval is None:
            continue
        numbers = ["not finite" if x is None else f"{x:.4g}" for x in (value, *interval)]
        # What counts all the images estimates nothing.
        exact = value is not None and interval == [value, value]
        bounds = "" if exact else f"{numbers[1]} to {numbers[2]}"
        table.add_row(name.replace("_", " "), numbers[0], bounds)
    return table
