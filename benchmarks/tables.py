"""The committed results as Markdown tables, for docs/recipes.md and docs/performance.md."""

import itertools
import json
import re
import statistics
from typing import Any

from benchmarks.machine import RESULTS

# Measurements of training_speed on Xeons with AMX, and which step they are of.
AMX_MEASUREMENTS = {
    "amx": "products for small images",
    "amx_one_pass_first": "one pass",
    "amx_one_pass": "one pass",
    "amx_one_pass_last": "one pass",
    "amx_idle_threads": "idle threads always sleep",
    "amx_asleep": "idle threads always sleep",
    "amx_give_way": "they sleep beside others",
    "amx_long_turns": "they sleep beside others",
    "amx_later": "they sleep beside others",
    "amx_mnist": "they sleep beside others",
    "amx_usual": "they sleep beside others",
}


def recipes() -> list[str]:
    """A row for each variant: means over the seeds, and the extremes of the distance."""
    lines = []
    rows = sorted(_result("recipes")["rows"], key=_variant)
    for (pipeline, network), of_pipeline in itertools.groupby(rows, key=_space):
        lines += [
            "",
            f"### {pipeline}, in {network}",
            "| variant | settings that are not the defaults | kimg | seeds | distance / floor | "
            "least to most | recall | coverage | nearest training image |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        groups = [list(group) for _, group in itertools.groupby(of_pipeline, key=_variant)]
        for group in sorted(groups, key=lambda group: _mean(group, "distance_over_floor")):
            first, ratios = group[0], [row["distance_over_floor"] for row in group]
            recipe = ", ".join(f"{key} {value}" for key, value in first["recipe"].items())
            lines.append(
                f"| {first['variant']} | {recipe.replace('training.', '')} | {first['kimg']:g} | "
                f"{len(group)} | {statistics.mean(ratios):.2f} | {min(ratios):.2f} to "
                f"{max(ratios):.2f} | {_mean(group, 'recall'):.3f} | "
                f"{_mean(group, 'coverage'):.3f} | {_mean(group, 'nearest_distance_ratio'):.2f} |"
            )
    return lines


def training_speed() -> list[str]:
    """Images per second of the contestants, and the ratios."""
    found = _result("training_speed")
    lines = [f"{found['machine']['processor']}, {found['machine']['cores']} cores", ""]
    for pipeline, measured in found["pipelines"].items():
        lines += [f"| {pipeline} | median | least | most |", "|---|---|---|---|"]
        for name, values in [*measured["images_per_second"].items(), *measured["ratios"].items()]:
            form = ".0f" if values["median"] > 20 else ".2f"
            numbers = (f"{values[key]:{form}}" for key in ("median", "least", "most"))
            lines.append(f"| {name} | {' | '.join(numbers)} |")
        lines.append("")
    return lines


def training_speed_amx() -> list[str]:
    """The ratios of every measurement with AMX, in the order of their time."""
    ratios = ("training / example", "training / bare_passes", "bare_engine / bare_passes")
    lines = [
        f"| measurement | of | pipeline | rounds | {' | '.join(ratios)} |",
        "|---" * (len(ratios) + 4) + "|",
    ]
    for name, state in AMX_MEASUREMENTS.items():
        found = _result(f"training_speed_{name}")
        for pipeline, measured in found["pipelines"].items():
            rounds = len(measured["images_per_second"]["example"]["rounds"])
            cells = " | ".join(_spread(measured["ratios"][ratio]) for ratio in ratios)
            lines.append(
                f"| `{name}` | {state} | {pipeline} | {rounds} of {found['seconds_a_turn']:g} s | "
                f"{cells} |"
            )
    return lines


def usual_passes() -> list[str]:
    """Ours as a share of the example's passes in the same place, in the one measurement of it."""
    measured = _result("training_speed_amx_usual")["pipelines"]
    lines = [f"| ratio | {' | '.join(measured)} |", "|---" * (len(measured) + 1) + "|"]
    for penalty in ("", "_r1"):
        for ours in ("bare_engine", "training"):
            ratio = f"{ours}{penalty} / usual_passes{penalty}"
            cells = " | ".join(_spread(of["ratios"][ratio]) for of in measured.values())
            lines.append(f"| {ratio} | {cells} |")
    return lines


def kernel_limits() -> list[str]:
    """GFLOP/s of each kernel in both precisions."""
    lines = ["| kernel | direction | bf16 | fp32 | ratio |", "|---|---|---|---|---|"]
    for kernel, directions in _result("kernel_limits")["gflops"].items():
        for direction, found in directions.items():
            numbers = f"{found['bf16']:.0f} | {found['fp32']:.0f}"
            ratio = found["bf16"] / found["fp32"]
            lines.append(f"| {kernel} | {direction} | {numbers} | {ratio:.1f} |")
    return lines


def weight_gradients() -> list[str]:
    """Milliseconds of each layer's weight gradient in both ways, and which one is taken."""
    lines = ["| layer | oneDNN, ms | product, ms | taken |", "|---|---|---|---|"]
    for layer, found in _result("weight_gradients")["layers"].items():
        numbers = f"{found['onednn_ms']:.2f} | {found['product_ms']:.2f}"
        lines.append(f"| {layer} | {numbers} | {found['chosen']} |")
    return lines


def thread_waiting() -> list[str]:
    """Images per second by the busy programs beside a training, and how long its threads spin."""
    lines = []
    for pipeline, situations in _result("thread_waiting")["images_per_second"].items():
        names = list(next(iter(situations.values())))
        lines += [f"| {pipeline} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for situation, speeds in situations.items():
            numbers = (f"{speeds[name]['median']:.0f}" for name in names)
            lines.append(f"| {situation} | {' | '.join(numbers)} |")
        lines.append("")
    return lines


def peers() -> list[str]:
    """Ours and other packages after equal time, the nearest first."""
    lines = [
        "| images | contestant | package | seconds | images shown | images per second | distance | "
        "distance / floor | recall | coverage |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    found = sorted(_result("peers")["rows"], key=lambda row: row["pipeline"], reverse=True)
    for pipeline, rows in itertools.groupby(found, key=lambda row: row["pipeline"]):
        for row in sorted(rows, key=lambda row: row["frechet_distance"]):
            lines.append(
                f"| {pipeline} | {row['contestant']} | {row['package']} | "
                f"{row['seconds']:.0f} | {row['images_shown']:,} | "
                f"{row['images_per_second']:.3g} | "
                f"{row['frechet_distance']:.4g} | {row['distance_over_floor']:.3g} | "
                f"{row['recall']:.2f} | {row['coverage']:.2f} |"
            )
    return lines


def stopping() -> list[str]:
    """Seconds from SIGTERM to the end, with a checkpoint."""
    lines = ["| pipeline | median, s | most, s |", "|---|---|---|"]
    for pipeline, seconds in _result("stopping")["seconds"].items():
        lines.append(f"| {pipeline} | {seconds['median']:.2f} | {seconds['most']:.2f} |")
    return lines


def training_overhead() -> list[str]:
    """The share of the time that is not training."""
    found = _result("training_overhead")
    lines = ["| activity | share of the time |", "|---|---|"]
    for name, share in found["share_of_activity"].items():
        lines.append(f"| {name.replace('_', ' ')} | {share['median']:.2%} |")
    return [*lines, f"| together | {found['share_by_timing']['median']:.2%} |"]


def evaluation_table() -> list[str]:
    """What each number sees in noise, held-out images and broken generators, with intervals."""
    found = _result("evaluation_table")
    names = {
        "frechet_distance": "distance",
        "kid": "KID",
        "precision": "precision",
        "recall": "recall",
        "density": "density",
        "coverage": "coverage",
        "class_coverage": "classes",
        "class_kl": "class KL",
        "intra_class_diversity": "diversity",
        "nearest_distance_ratio": "nearest",
        "second_frechet_distance": "distance, random",
    }
    lines = [
        f"{found['machine']['processor']}; measured "
        f"{next(iter(found['rows'].values()))['card']['line']}.",
        "",
        f"| samples | {' | '.join(names.values())} | failed checks |",
        "|---" * (len(names) + 2) + "|",
    ]
    for sample, row in found["rows"].items():
        cells = [_with_interval(row.get(name), row.get(f"{name}_ci")) for name in names]
        failed = [check["name"] for check in row["checks"] if not check["passed"]]
        lines.append(f"| {sample} | {' | '.join(cells)} | {', '.join(failed) or 'none'} |")
    return lines


def _spread(ratio: dict[str, float]) -> str:
    return (
        f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f}); "
        f"{ratio['all_rounds_together']:.2f}"
    )


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    if value is None or interval is None or None in interval:
        return "-"
    low, high = interval
    exact = low == value == high
    return f"{value:.3g}" if exact else f"{value:.3g} ({low:.3g} to {high:.3g})"


def _result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _space(row: dict[str, Any]) -> tuple[str, str]:
    """Numbers are compared in one network only; its hash stands in the card."""
    found = re.search(r"in (classifier|random|inception)\S* ([0-9a-f]{8})", row["card"])
    return row["pipeline"], " ".join(found.groups()) if found else "another network"


def _variant(row: dict[str, Any]) -> tuple[Any, ...]:
    return *_space(row), row["variant"], row["kimg"]


def _mean(rows: list[dict[str, Any]], name: str) -> float:
    return statistics.mean(row[name] for row in rows)


if __name__ == "__main__":
    for table in (
        recipes,
        training_speed,
        training_speed_amx,
        usual_passes,
        kernel_limits,
        weight_gradients,
        thread_waiting,
        peers,
        training_overhead,
        stopping,
        evaluation_table,
    ):
        print(f"\n<!-- {table.__name__} -->")
        print("\n".join(table()))
