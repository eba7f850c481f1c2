"""What Dagster loads: all pipelines of `pipelines/defs`.

Nothing that is imported here may import torch or mlflow: Dagster's pages would wait for it.
"""

import dagster as dg

from pipelines.failure_sensor import build_failure_sensor
from pipelines.home import PROJECT
from pipelines.pipeline_files import pipeline_files, read_pipeline_file
from pipelines.run_limits import EXECUTOR, no_values
from pipelines.settings_overrides import RESOURCE_KEY, SettingsOverrides


@dg.definitions
def defs() -> dg.Definitions:
    """All pipelines, what a run changes their settings through, and who is told when it fails."""
    # A mistake in a file is told in one sentence.
    settings = {name: read_pipeline_file(file) for name, file in pipeline_files().items()}
    return dg.Definitions.merge(
        dg.load_from_defs_folder(path_within_project=PROJECT),
        dg.Definitions(
            resources={RESOURCE_KEY: SettingsOverrides(), "io_manager": no_values},
            executor=EXECUTOR,
            sensors=[build_failure_sensor(settings)],
        ),
    )
