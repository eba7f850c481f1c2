"""The command line `gan-foundry`.

Results go to standard output, everything else to standard error.
"""

import contextlib
import datetime
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape

from gan_core.errors import FoundryError
from pipelines.terminal import (
    RunDisplay,
    collection_table,
    error_console,
    ledger_table,
    move_sentence,
    print_result,
    scores_table,
    trials_table,
    versions_table,
)

if TYPE_CHECKING:
    from pipelines.ledger import Move
    from pipelines.registry import RegisteredVersion

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # as shells report SIGINT


class _Group(click.Group):
    """Turns errors that the user can mend into one line and exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FoundryError as error:
            error_console().print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
            ctx.exit(EXIT_USER_ERROR)
        except OSError as error:
            from pipelines.store import describe_forbidden, is_forbidden

            if not is_forbidden(error):
                raise
            text = escape(describe_forbidden(error))
            error_console().print(f"[red]error:[/] {text}", soft_wrap=True)
            ctx.exit(EXIT_USER_ERROR)


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")


@click.group(cls=_Group)
@click.version_option(package_name="gan-foundry")
def main() -> None:
    """Pipelines that turn a folder of images into a registered, evaluated image generator."""


@main.command()
@click.argument("name")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting for this run.",
)
@click.option("--seed", type=int, help="Short for --set training.seed=N.")
@json_option
def run(name: str, assignments: tuple[str, ...], seed: int | None, as_json: bool) -> None:
    """Run the whole pipeline NAME: download, prepare, train, evaluate, sample, register."""
    from pipelines.pipeline_files import parse_assignment

    overrides = dict(parse_assignment(text) for text in assignments)
    if seed is not None:
        overrides["training.seed"] = seed
    console = error_console()
    with _standard_output_to_error(), _running(console):
        from pipelines.run import run_pipeline

        summary = run_pipeline(name, overrides).summary()
    print_result(console, summary)
    if as_json:
        click.echo(json.dumps(summary))


PORT = click.IntRange(1, 65535)


@main.command()
@click.option("--port", type=PORT, default=3000, show_default=True, help="Of Dagster's pages.")
@click.option(
    "--mlflow-port", type=PORT, default=5000, show_default=True, help="Of MLflow's pages."
)
@click.option("--read-only", is_flag=True, help="Pages that show all and change nothing.")
def ui(port: int, mlflow_port: int, read_only: bool) -> None:
    """Start Dagster's pages and daemon and MLflow's server on this machine, until Ctrl-C."""
    from pipelines.ui import serve

    serve(port, mlflow_port, read_only)


@main.command()
@click.argument("name")
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How many there shall be, with those of earlier calls.",
)
@click.option(
    "--timeout-minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop the trial that trains then, with a checkpoint; running again goes on.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of the section sweep.",
)
@json_option
def sweep(
    name: str,
    trials: int,
    timeout_minutes: float | None,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Try other settings of pipeline NAME, and write the best as a diff of its file."""
    from pipelines.pipeline_files import parse_assignment

    overrides = dict(parse_assignment(text) for text in assignments)
    with _standard_output_to_error(), _running(error_console()):
        from pipelines.sweep.sweep import sweep_pipeline

        found = sweep_pipeline(name, trials, overrides, timeout_minutes)
    summary = found.summary()
    if as_json:
        click.echo(json.dumps(summary))
        return
    console = Console(highlight=False)
    console.print(trials_table(summary))
    if found.winner and found.winner.diff:
        click.echo(found.winner.diff)
    for line in (found.plots.sentence, found.sentence):
        console.print(line, markup=False, soft_wrap=True)


@main.command()
@click.argument("model")
@click.option("-n", "--count", default=64, show_default=True, help="How many images.")
@click.option("--seed", default=7, show_default=True)
@click.option("--truncation", default=1.0, show_default=True, help="Above 0, at most 1.")
@click.option(
    "--interpolation",
    "stops",
    type=int,
    default=0,
    metavar="STOPS",
    help="Also an animated GIF that walks through so many latents and back.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="A new or empty folder."
)
@json_option
def sample(
    model: str, count: int, seed: int, truncation: float, stops: int, out: Path, as_json: bool
) -> None:
    """Generate images with MODEL: a name, name@alias, name/version, or a folder."""
    from pipelines.sampling import sample_model

    with _standard_output_to_error():
        result = sample_model(model, count, seed, truncation, out, stops)
    if as_json:
        click.echo(json.dumps(result))
    else:
        place = Path(result["grid"]).parent
        text = f"{count} images, their grid and archive are in {place}"
        error_console().print(text, markup=False, soft_wrap=True)


@main.command()
@click.argument("model")
@click.option("--port", type=PORT, default=5001, show_default=True)
def serve(model: str, port: int) -> None:
    """Answer with images of MODEL over HTTP on this machine, until Ctrl-C."""
    from pipelines.image_server import serve_model

    serve_model(model, port, lambda line: error_console().print(line, markup=False))


@main.command()
@click.argument("model")
@click.option(
    "--onnx", type=click.Path(path_type=Path), required=True, help="The file to write, new."
)
@json_option
def export(model: str, onnx: Path, as_json: bool) -> None:
    """Write MODEL as ONNX, tried in onnxruntime; it needs the extra `onnx`."""
    from pipelines.sampling import export_model

    with _standard_output_to_error():
        result = export_model(model, onnx)
    if as_json:
        click.echo(json.dumps(result))
    else:
        error_console().print(
            f"{onnx}: inputs {', '.join(result['inputs'])}; at most "
            f"{result['largest_difference']:.1g} from PyTorch's outputs of -1 to 1",
            markup=False,
            soft_wrap=True,
        )


@main.command()
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--against", "name", required=True, metavar="NAME", help="A pipeline.")
@json_option
def evaluate(images: Path, name: str, as_json: bool) -> None:
    """Score IMAGES, a folder, zip or .npz whoever made them, against pipeline NAME's real ones."""
    from pipelines.evaluating import evaluate_images

    with _standard_output_to_error():
        found = evaluate_images(images, name)
    if as_json:
        click.echo(json.dumps(found.summary()))
    else:
        console = Console(highlight=False)
        console.print(scores_table(found.summary()))
        for check in found.checks:
            console.print(f"{'✓' if check.passed else '✗'} {check.name}: {check.message}")
        for line in (f"measured {found.card.line}", f"second space: {found.second.card.line}"):
            console.print(line, markup=False, soft_wrap=True)


@main.command()
@click.argument("name", required=False)
@json_option
def models(name: str | None, as_json: bool) -> None:
    """List registered models, or the versions of NAME and every move of its aliases."""
    with _standard_output_to_error():
        found = _list_models(name)
    if as_json:
        click.echo(json.dumps(found[0] if name else {"models": found}))
    elif found:
        console = Console(highlight=False)
        console.print(versions_table(found))
        if name:
            console.print(ledger_table(found[0]["ledger"]))
    else:
        click.echo("no models are registered yet; `gan-foundry run digits` trains the first")


WHY = "One sentence for the ledger."


@main.command()
@click.argument("name")
@click.argument("version", type=int)
@click.option("--why", required=True, help=WHY)
@json_option
def promote(name: str, version: int, why: str, as_json: bool) -> None:
    """Make VERSION of NAME the champion."""
    from pipelines import promotion

    with _standard_output_to_error():
        move = promotion.promote(name, version, why)
    _print_move(name, move, as_json)


@main.command()
@click.argument("name")
@click.argument("version", type=int)
@click.option("--why", required=True, help=WHY)
@json_option
def veto(name: str, version: int, why: str, as_json: bool) -> None:
    """Take VERSION of NAME out of the running: no alias, and the gate never promotes it."""
    from pipelines import promotion

    with _standard_output_to_error():
        move = promotion.veto(name, version, why)
    _print_move(name, move, as_json)


@main.command()
@click.argument("name")
@click.option("--why", default="rolled back", show_default=True, help=WHY)
@json_option
def rollback(name: str, why: str, as_json: bool) -> None:
    """Put the previous champion of NAME back, and veto the present one."""
    from pipelines import promotion

    with _standard_output_to_error():
        move = promotion.rollback(name, why)
    _print_move(name, move, as_json)


@main.command()
@click.argument("name")
@click.argument("version", type=int)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Where one's own images are; by default where the pipeline NAME has them.",
)
@json_option
def reproduce(name: str, version: int, images: Path | None, as_json: bool) -> None:
    """Train VERSION of NAME again from what the registry recorded, and compare."""
    console = error_console()
    with _standard_output_to_error(), _running(console):
        from pipelines.reproduction import reproduce as train_again

        found = train_again(name, version, images)
    console.print(found.sentence, markup=False, soft_wrap=True)
    if as_json:
        click.echo(json.dumps(found.summary()))
    sys.exit(0 if found.same_weights or found.within_interval else 1)


@main.command()
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    required=True,
    help="Versions and runs that stay of each pipeline, the newest.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
def gc(keep: int, dry_run: bool, as_json: bool) -> None:
    """Remove what old runs left; never what an alias or the last two champions need."""
    from pipelines.housekeeping import collect

    with _standard_output_to_error():
        found = collect(keep, dry_run=dry_run)
    if as_json:
        plans = [plan.summary() for plan in found.plans]
        click.echo(json.dumps({"dry_run": dry_run, "pipelines": plans, "left": found.left}))
        return
    console = Console(highlight=False)
    console.print(collection_table(found))
    console.print("nothing was removed (--dry-run)" if dry_run else found.left or "removed")


@main.command()
def settings() -> None:
    """Print every setting with what is allowed, its default and its meaning."""
    from gan_core.settings_table import settings_table

    click.echo(settings_table(), nl=False)


@main.command()
@click.argument("name")
@click.option("--test", is_flag=True, help="Send a test message through every channel.")
@json_option
def notify(name: str, test: bool, as_json: bool) -> None:
    """Say through which channels pipeline NAME tells people, and whether they are configured."""
    from pipelines.notifications import channel_report

    found = channel_report(name, test=test)
    if as_json:
        click.echo(json.dumps({"pipeline": name, "channels": found}))
    else:
        for channel, state in found.items():
            click.echo(f"{channel}: {state}")


@main.command()
@json_option
def doctor(as_json: bool) -> None:
    """Say what is installed, where things lie, and whether they can be used."""
    from pipelines.doctor import examine

    with _standard_output_to_error():
        report = examine()
    if as_json:
        click.echo(json.dumps(report))
    else:
        width = max(len(key) for key in report)
        for key, value in report.items():
            click.echo(f"{key:<{width}}  {value}")
    sys.exit(0 if report["healthy"] else 1)


def _list_models(name: str | None) -> list[dict[str, Any]]:
    from pipelines import ledger, registry, tracking

    with tracking.tracking_errors():
        client = registry.connect_for_reading()
        known = registry.models(client) if client else []
        if name is not None and name not in known:
            raise registry.no_such_model(name, known)
        return [
            {
                "name": model,
                "versions": [_version_row(v) for v in registry.versions(client, model)],
                "ledger": [
                    move.model_dump(mode="json") for move in ledger.read_moves(client, model)
                ],
            }
            for model in ([name] if name else known)
            if client
        ]


def _version_row(version: "RegisteredVersion") -> dict[str, Any]:
    from pipelines import registry

    created = datetime.datetime.fromtimestamp(version.created_milliseconds / 1000, datetime.UTC)

    def numbers(tag: str, count: int) -> list[float] | None:
        try:
            found = [float(text) for text in version.tags[tag].split()]
        except (KeyError, ValueError):  # other programs register too, with tags of their own
            return None
        return found if len(found) == count else None

    def number(tag: str) -> float | None:
        found = numbers(tag, 1)
        return found[0] if found else None

    return {
        "version": version.version,
        "aliases": list(version.aliases),
        "frechet_distance": number(registry.DISTANCE_TAG),
        "frechet_distance_ci": numbers(registry.INTERVAL_TAG, 2),
        "floor": number(registry.FLOOR_TAG),
        "metric_card": version.tags.get(registry.CARD_TAG),
        "decision": version.tags.get(registry.DECISION_TAG),
        "vetoed": version.tags.get(registry.VETOED_TAG),
        "blessed": version.tags.get(registry.BLESSED_TAG),
        "mlflow_run_id": version.run_id,
        "created": created.isoformat(timespec="seconds"),
        "uri": version.uri,
    }


def _print_move(name: str, move: "Move", as_json: bool) -> None:
    if as_json:
        click.echo(move.model_dump_json())
    else:
        error_console().print(f"{name}: {move_sentence(move.model_dump())}", markup=False)


@contextlib.contextmanager
def _running(console: Console) -> Iterator[None]:
    """Show what happens; end with a sentence and the right status if it is interrupted or fails."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    from pipelines.progress import watching
    from pipelines.run import RunInterruptedError, StageCrashedError

    try:
        with RunDisplay(console) as display, watching(display):
            yield
    except RunInterruptedError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(EXIT_INTERRUPTED)
    except StageCrashedError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(1)


@contextlib.contextmanager
def _standard_output_to_error() -> Iterator[None]:
    """Keep what libraries and their child processes print out of the results."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
