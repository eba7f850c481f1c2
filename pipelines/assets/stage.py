"""What all stages share: how one becomes a Dagster asset, finds its inputs and shows its results.

No stage's own work is here.
"""

import base64
import contextlib
import datetime
import io
import logging
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from gan_core.config import PipelineSettings, fingerprint
from gan_core.errors import FoundryError, hide_passwords
from pipelines.devices import devices_to_oneself
from pipelines.home import store_folder
from pipelines.materializations import data_version
from pipelines.progress import publish
from pipelines.settings_overrides import SettingsOverrides
from pipelines.store import stage_path

if TYPE_CHECKING:
    import numpy as np

INLINE_IMAGE_BYTES = 150_000  # more is slow in Dagster's pages
MATERIALIZATIONS_SEARCHED = 50


@dataclass(frozen=True)
class StageContext:
    """What a stage works with.

    Attributes:
        pipeline: Its name.
        stage: The stage's own name.
        version: Of the stage's code; part of every key.
        settings: The pipeline's, with the run's overrides applied.
        dagster: For the log, the run and the instance.
    """

    pipeline: str
    stage: str
    version: str
    settings: PipelineSettings
    dagster: dg.AssetExecutionContext

    @property
    def run_id(self) -> str:
        """Of the Dagster run."""
        return self.dagster.run.run_id

    @contextlib.contextmanager
    def devices(self, device: str, count: int = 1) -> Iterator[None]:
        """Hold devices alone, as `devices_to_oneself`; waiting is told, and which they are."""

        def tell() -> None:
            publish("waiting", self.stage)
            self.dagster.log.info("waiting for a device: other trainings have them all")

        with devices_to_oneself(device, count, tell) as names:
            self.dagster.log.info(f"on {', '.join(names)}")
            yield

    def path(self, *inputs: Any) -> Path:
        """The stage's folder for these inputs and settings."""
        key = fingerprint([self.stage, self.version, *inputs])
        return stage_path(store_folder(), self.pipeline, self.stage, key)

    def upstream(self, stage: str) -> Path:
        """The folder that another stage left, as `_materialization` chooses among them.

        Raises:
            FoundryError: It was never materialized, or its folder is gone.
        """
        asset_key = dg.AssetKey([self.pipeline, stage])
        found = self._materialization(asset_key)
        name = asset_key.to_user_string()
        if found is None:
            raise FoundryError(
                f"{name} was never materialized; materialize it before "
                f"{self.pipeline}/{self.stage}."
            )
        key = data_version(found)
        folder = stage_path(store_folder(), self.pipeline, stage, key)
        if not key or not folder.exists():
            raise FoundryError(f"the folder {folder} of {name} is gone; materialize {name} again.")
        return folder

    def _materialization(self, asset_key: dg.AssetKey) -> dg.EventLogEntry | None:
        """The last of this run, else of the nearest run that it goes on from, else of any run.

        A run that Dagster, or a person, starts again from its failure skips what was done before:
        that was done with its settings, while the latest may be of a run with others.
        """
        instance = self.dagster.instance
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        run: dg.DagsterRun | None = self.dagster.run
        while run is not None:
            for event in reversed(instance.all_logs(run.run_id, of_type=kind)):
                made = event.asset_materialization
                if made is not None and made.asset_key == asset_key:
                    return event
            parent = run.get_parent_run_id()
            run = instance.get_run_by_id(parent) if parent else None
        return instance.get_latest_materialization_event(asset_key)

    def was_recorded(self, key: str) -> bool:
        """Whether a run before this one recorded this stage with this key, as Dagster remembers."""
        records = self.dagster.instance.fetch_materializations(
            dg.AssetKey([self.pipeline, self.stage]), limit=MATERIALIZATIONS_SEARCHED
        ).records
        return any(data_version(record) == key for record in records)


@dataclass(frozen=True)
class CheckOutcome:
    """What an asset check says.

    Attributes:
        name: One of the stage's checks.
        passed: Whether it holds.
        blocking: Whether the stages that follow are skipped if it does not.
        message: One sentence.
        metadata: What it compared.
    """

    name: str
    passed: bool
    blocking: bool
    message: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class StageResult:
    """What a stage found or made.

    Attributes:
        data_version: The key of its folder, or what else identifies the result.
        reused: Whether it was there already.
        metadata: What a person wants to see of it in Dagster.
        checks: The outcome of each of its checks.
    """

    data_version: str
    reused: bool
    metadata: Mapping[str, Any]
    checks: tuple[CheckOutcome, ...] = ()


@dataclass(frozen=True)
class Stage:
    """The definition of one stage.

    Attributes:
        name: The asset's name below the pipeline's prefix.
        work: Does it.
        description: For the user interface.
        upstream: Names of the stages it reads.
        kinds: Icons in the user interface.
        pool: Concurrency pool, for stages that want the whole device.
        checks: Asset checks that its work gives the outcomes of, with their descriptions.
        version: Raised when the same inputs would give another result.
        resumes: Whether it goes on where it was when it crashed; then it is tried again.
        ages: Whether it is shown as overdue when it is old.
    """

    name: str
    work: Callable[[StageContext], StageResult]
    description: str
    upstream: tuple[str, ...] = ()
    kinds: frozenset[str] = field(default_factory=frozenset)
    pool: str | None = None
    checks: Mapping[str, str] = field(default_factory=dict)
    version: str = "1"
    resumes: bool = False
    ages: bool = False

    def build_asset(
        self, pipeline: str, settings: PipelineSettings, *, in_process: bool = False
    ) -> dg.AssetsDefinition:
        """The Dagster asset of this stage in a pipeline.

        Args:
            pipeline: Its name.
            settings: Its own.
            in_process: For runs whose stages have no process of their own. Dagster's policy, which
                such a process needs when it is killed, would try an interrupted stage again too.
        """
        operation = settings.operation
        retried = self.resumes and not in_process
        hours = operation.freshness_hours if self.ages else None

        @dg.asset(
            name=self.name,
            key_prefix=pipeline,
            group_name=pipeline,
            deps=[dg.AssetKey([pipeline, name]) for name in self.upstream],
            description=self.description,
            kinds=set(self.kinds),
            pool=self.pool,
            code_version=self.version,
            owners=list(operation.owners),
            tags={"gan_foundry/pipeline": pipeline},
            retry_policy=dg.RetryPolicy(operation.retries) if retried else None,
            freshness_policy=dg.FreshnessPolicy.time_window(datetime.timedelta(hours=hours))
            if hours
            else None,
            config_schema={},  # what a run changes goes through `overrides`
            check_specs=[
                dg.AssetCheckSpec(
                    name,
                    asset=dg.AssetKey([pipeline, self.name]),
                    description=description,
                    blocking=True,
                )
                for name, description in self.checks.items()
            ],
        )
        def stage_asset(
            context: dg.AssetExecutionContext, overrides: SettingsOverrides
        ) -> dg.MaterializeResult:
            publish("stage_started", self.name)
            start = time.monotonic()
            try:
                own = overrides.apply(settings)
                result = self.work(StageContext(pipeline, self.name, self.version, own, context))
            except FoundryError as error:
                raise failure_of(error, context.log) from None
            except Exception as error:
                if not self.resumes:
                    raise
                raise dg.RetryRequested(operation.retries) from error
            seconds = time.monotonic() - start
            publish("stage_finished", self.name, seconds=seconds, reused=result.reused)
            return dg.MaterializeResult(
                data_version=dg.DataVersion(result.data_version),
                metadata={**result.metadata, "seconds": seconds, "reused": result.reused},
                check_results=[_check_result(outcome) for outcome in result.checks],
            )

        return stage_asset


def failure_of(error: FoundryError, log: logging.Logger) -> dg.Failure:
    """What Dagster records of a mistake: its sentence, without the exceptions that led to it.

    Those quote addresses with their passwords, and stand in the log at the level of debugging
    without them.
    """
    if error.__cause__ is not None:
        log.debug(hide_passwords("".join(traceback.format_exception(error))))
    return dg.Failure(description=str(error), allow_retries=False)


def _check_result(outcome: CheckOutcome) -> dg.AssetCheckResult:
    severity = dg.AssetCheckSeverity.ERROR if outcome.blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        check_name=outcome.name,
        passed=outcome.passed,
        severity=severity,
        description=outcome.message,
        metadata=outcome.metadata,
    )


def inline_grid(pixels: "np.ndarray", caption: str) -> dg.MarkdownMetadataValue:
    """A picture in Dagster's pages.

    Args:
        pixels: uint8, shape (height, width, channels); enlarged where it is small.
        caption: Its alternative text.
    """
    from gan_core.image_grid import display_scale, png_bytes

    return inline_png(png_bytes(pixels, display_scale(pixels)), caption)


def inline_png(
    content: bytes, caption: str, most_bytes: int = INLINE_IMAGE_BYTES
) -> dg.MarkdownMetadataValue:
    """PNG bytes as a picture in Dagster's pages, made smaller where it is too large for them."""
    import PIL.Image

    while len(content) > most_bytes:
        with PIL.Image.open(io.BytesIO(content)) as picture:
            share = 0.9 * math.sqrt(most_bytes / len(content))
            size = (int(picture.width * share), int(picture.height * share))
            smaller = picture.resize(size, PIL.Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        smaller.save(buffer, "png", optimize=True)
        content = buffer.getvalue()
    encoded = base64.b64encode(content).decode()
    return dg.MetadataValue.md(f"![{caption}](data:image/png;base64,{encoded})")
