"""What the documents show of the measurements is what was measured."""

from collections.abc import Callable

import pytest

from benchmarks import tables
from tests.conftest import PROJECT


@pytest.mark.parametrize(
    ("table", "document"),
    [
        (tables.recipes, "recipes"),
        (tables.training_speed, "performance"),
        (tables.training_speed_amx, "performance"),
        (tables.usual_passes, "performance"),
        (tables.kernel_limits, "performance"),
        (tables.weight_gradients, "performance"),
        (tables.thread_waiting, "performance"),
        (tables.peers, "performance"),
        (tables.training_overhead, "performance"),
        (tables.stopping, "performance"),
        (tables.evaluation_table, "evaluation"),
    ],
)
def test_tables_of_the_documents_are_those_of_the_results(
    table: Callable[[], list[str]], document: str
) -> None:
    lines = (PROJECT / "docs" / f"{document}.md").read_text().splitlines()
    shown = {line.strip() for line in lines}
    assert [line for line in table() if line not in shown] == []
