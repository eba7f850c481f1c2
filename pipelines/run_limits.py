"""What no run configuration can bring along: modules to import, and folders to write values to.

Dagster's own executor and input/output manager take both from whoever launches a run.
"""

from typing import Any

import dagster as dg


class NoValues(dg.IOManager):
    """Stages hand folders to each other by their keys, and Dagster no values."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        if obj is not None:
            raise dg.DagsterInvariantViolationError(
                f"{context.step_key} returned a value; stages return a MaterializeResult."
            )

    def load_input(self, context: dg.InputContext) -> Any:
        raise dg.DagsterInvariantViolationError(
            f"{context.name} cannot be loaded; stages find their inputs in the store."
        )


@dg.io_manager(config_schema={}, description="Keeps nothing: stages exchange folders.")
def no_values() -> dg.IOManager:
    """The input/output manager of every job, without configuration."""
    return NoValues()


# Each step in a process of its own; the launchpad can neither tune nor replace it. They are forked
# from one process that has imported what steps need, because importing it takes seconds. None of
# these starts a Python thread, which a fork would lose, or touches a GPU.
PRELOADED = (
    "pipelines.step_server",
    "dagster",
    "pandas",
    "torch",
    "mlflow",
    "pipelines.definitions",
    "pipelines.components",
)
EXECUTOR = dg.multiprocess_executor.configured(
    lambda _: {"start_method": {"forkserver": {"preload_modules": list(PRELOADED)}}},
    config_schema={},
    name="a_process_each_step",
)
