"""The course of one training: how far it is, what it tells, and what its evaluations lead to."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from gan_core.data.image_set import ImageSet
from gan_core.errors import FoundryError
from gan_core.generator import ReleasedGenerator
from gan_core.training.alarms import Alarm, Measurement, reaction_now, watch_over
from gan_core.training.checkpoint import ALARM, BUDGET, PLATEAU, Progress
from gan_core.training.describe import describe_training, draw_grid
from gan_core.training.job import (
    DISCRIMINATOR_FILE,
    GRID_FOLDER,
    JOURNAL_FILE,
    RELEASE_FOLDER,
)
from gan_core.training.journal import Journal, SilentJournal
from gan_core.training.monitoring import Monitor
from gan_core.training.step import SCALARS
from gan_core.training.trainer import Trainer


class Course:
    """Follows a trainer from where its checkpoint stands.

    In a training of several processes each has its own, which decides the same; the chief's alone
    writes files.

    Args:
        trainer: Restored.
        images: What it learns from.
        folder: Of the training.

    Attributes:
        images: Real images shown.
        evaluation_is_due: Whether one was cut off by a stop.
    """

    def __init__(self, trainer: Trainer, images: ImageSet, folder: Path) -> None:
        self._trainer, self._folder = trainer, folder
        self._job, self._settings = trainer.job, trainer.job.training
        start = trainer.progress
        self._start = start
        self.images = start.images
        self._before = max(0, start.images - self._settings.batch_size)
        self._steps_since_line = start.steps_since_line
        self._watch = start.watch
        self._is_at_snapshot = start.is_at_snapshot  # since a roll-back, until the next step
        self._finished = start.finished
        self.evaluation_is_due = start.evaluation_is_due
        self._clock = _Clock(start.seconds, start.images)
        self._is_chief = trainer.processes.is_chief
        watched = self._settings.monitoring.interval_kimg > 0
        self._monitor = (
            Monitor(self._job, images) if watched and self._job.feature_network else None
        )
        self._journal: Journal = (
            Journal(folder / JOURNAL_FILE, start.journal_bytes)
            if self._is_chief
            else SilentJournal()
        )

    def __enter__(self) -> Self:
        """Open the journal, and begin it if this is the beginning."""
        self._journal.__enter__()
        if self._start.journal_bytes == 0:
            self._tell("start", **describe_training(self._trainer))
            self.write_grid()
        elif self._trainer.budget_was_raised:
            best = self._watch.best
            begin = best.images if best and self._is_at_snapshot else self.images
            self._tell(
                "budget_raised",
                total_kimg=self._job.total_images / 1000,
                from_kimg=begin / 1000,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._journal.__exit__(kind, error, trace)

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent, or the training was ended before."""
        return self._finished is not None or self.images >= self._job.total_images

    def advance(self) -> None:
        """Count one step."""
        self._before = self.images
        self._is_at_snapshot = False
        self.images += self._settings.batch_size
        self._steps_since_line += 1

    def is_due(self, interval_kimg: float) -> bool:
        """Whether a multiple of the interval was passed by the last step, or the end was reached.

        An interval of 0 is never due.
        """
        if not interval_kimg:
            return False
        interval = interval_kimg * 1000
        return self.images // interval > self._before // interval or self.is_over

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether it is time for a checkpoint; the end has its own."""
        return not self.is_over and (
            self._clock.since_checkpoint() > self._settings.checkpoint_interval_seconds
        )

    def write_line(self) -> None:
        """A journal line with the means since the last one, without what no step had."""
        if self._steps_since_line == 0 or not self._is_finite():
            return
        steps = self._trainer.steps_with(self.images, self._steps_since_line)
        sums = dict(zip(SCALARS, self._trainer.sums.tolist(), strict=True))
        scalars = {name: sums[name] / count for name, count in steps.items() if count}
        self._watch = self._watch.with_accuracy(
            scalars["discriminator_accuracy"], self._steps_since_line
        )
        self._tell(
            "progress",
            total_kimg=self._job.total_images / 1000,
            seconds=self._clock.seconds(),
            images_per_second=self._clock.images_per_second(self.images),
            learning_rate_factor=self._trainer.rate_factor
            * self._trainer.learning_rate_factor(self._before),
            augmentation_probability=self._trainer.augmentation.probability.item(),
            **scalars,
        )
        self._begin_line()

    def write_grid(self) -> None:
        """A grid of samples, from the same latents every time."""
        if not self.is_over:  # the end shows what is released
            self._write_grid(self._trainer.released(), "")

    def evaluate(self, should_stop: Callable[[], str | None]) -> str | None:
        """Measure the generator, keep it if it is the best so far, and react to alarms.

        Args:
            should_stop: Asked now and then; a reason cuts the evaluation off.

        Returns:
            That reason. The evaluation is then due when the training goes on.
        """
        self.evaluation_is_due = False
        if self._monitor is None or not self._is_finite(with_weights=True):
            return None
        found: Measurement | str | None = None
        start = time.monotonic()
        if self._is_chief:
            found = self._monitor.measure(
                self._trainer.released(), self.images, self._watch.accuracy, should_stop
            )
        found = self._trainer.processes.agree(found)
        if not isinstance(found, Measurement):
            self.evaluation_is_due = True
            return found
        self._watch, alarms = watch_over(self._watch, found, self._settings.alarms)
        is_best = self._watch.best == found
        self._tell(
            "evaluation",
            seconds=time.monotonic() - start,
            distance=found.distance,
            class_coverage=found.class_coverage,
            diversity=found.diversity,
            discriminator_accuracy=found.discriminator_accuracy,
            is_best=is_best,
        )
        if is_best:
            if self._is_chief:
                self._trainer.save_snapshot(self._folder, self.images)
            self._trainer.processes.agree(None)  # wait: the reaction may be to return to it
        self._react(alarms)
        patience = self._settings.monitoring.patience_evaluations
        if patience and self._watch.since_best >= patience:
            self._finished = self._finished or PLATEAU
        return None

    def save_on_the_way(self) -> None:
        """A checkpoint; what is broken, and to be stopped for it, ends here, as the chief sees it.

        What is to be rolled back goes on to its journal line, which has the same place in every
        attempt.

        Raises:
            FoundryError: The training cannot go on.
        """
        alarms = self._settings.alarms
        stops = reaction_now(self._watch, alarms.non_finite, alarms) == "stop"
        if stops and self._is_chief:  # each process has a clock of its own
            self._is_finite(with_weights=True)
        self.save()

    def save(self) -> None:
        """A checkpoint, unless what would be saved is broken: then the last good one stays."""
        self._clock.checkpoint_saved()
        sums_are_finite = all(map(math.isfinite, self._trainer.sums.tolist()))
        if not self._is_chief or not sums_are_finite or self._trainer.non_finite():
            return
        progress = Progress(
            job_fingerprint=self._job.fingerprint,
            budgets_images=self._trainer.progress.budgets_images,
            images=self.images,
            seconds=self._clock.seconds(),
            journal_bytes=self._journal.sync(),
            steps_since_line=self._steps_since_line,
            rate_factor=self._trainer.rate_factor,
            watch=self._watch,
            finished=self._finished,
            evaluation_is_due=self.evaluation_is_due,
            is_at_snapshot=self._is_at_snapshot,
        )
        self._trainer.save(self._folder, progress)

    def finish(self) -> None:
        """End the journal, save the end, and release the chosen generator."""
        if not self._is_chief:
            return
        if self._start.finished is None:
            self.write_line()  # what an early end left over
            self._is_finite(with_weights=True)  # else it is an alarm, with its reaction
        chosen, images = self._trainer.released(), self.images
        best = self._watch.best
        if best is not None and self._is_at_snapshot:
            images = best.images
        snapshot = None
        # What an alarm has stopped is not released, whatever the settings release otherwise.
        wants_best = self._settings.monitoring.release == "best" or self._finished == ALARM
        if best is not None and wants_best:
            snapshot = images = best.images
            chosen = self._trainer.released_snapshot(self._folder, snapshot)
        if self._start.finished is None:
            self._finished = self._finished or BUDGET
            # By its own name: an early end may come where a grid was just drawn.
            self._write_grid(chosen, "-released")
            self._tell(
                "end",
                seconds=self._clock.seconds(),
                reason=self._finished,
                released_kimg=images / 1000,
            )
            self.save()
        release = self._folder / RELEASE_FOLDER
        release.mkdir(exist_ok=True)
        chosen.save(release)
        opponent = self._trainer.released_discriminator(self._folder, snapshot)
        (self._folder / DISCRIMINATOR_FILE).write_bytes(opponent)

    def _tell(self, event: str, **values: object) -> None:
        self._journal.write(
            event, time=time.time(), images=self.images, kimg=self.images / 1000, **values
        )

    def _begin_line(self) -> None:
        self._trainer.sums.zero_()
        self._steps_since_line = 0

    def _write_grid(self, generator: ReleasedGenerator, ending: str) -> None:
        if self._is_chief:
            file = f"{GRID_FOLDER}/kimg-{self.images / 1000:010.3f}{ending}.png"
            (self._folder / GRID_FOLDER).mkdir(exist_ok=True)
            draw_grid(generator, self._settings.seed, self._folder / file)
            self._tell("grid", file=file)

    def _is_finite(self, *, with_weights: bool = False) -> bool:
        """Whether all losses are; if one is not, the alarm is given.

        Args:
            with_weights: Look at the networks too, which the last step may have broken after it
                had its losses.

        Raises:
            FoundryError: The training cannot go on.
        """
        broken = [
            f"{name} is {value}"
            for name, value in zip(SCALARS, self._trainer.sums.tolist(), strict=True)
            if not math.isfinite(value)
        ]
        tensor = self._trainer.non_finite() if broken or with_weights else None
        if not broken and tensor is None:
            return True
        at = f"at {self.images / 1000:g} kimg"
        if not broken:
            message = f"the tensor {tensor} holds a NaN or an infinity {at}"
        else:
            message = f"{broken[0]} {at}" + (f", and so is the tensor {tensor}" if tensor else "")
        alarms = self._settings.alarms
        reaction = reaction_now(self._watch, alarms.non_finite, alarms)
        self._react([Alarm("non_finite", message, reaction)])
        if reaction == "stop":
            raise FoundryError(
                f"the training diverged: {message}; lower training.generator_learning_rate and "
                f"training.discriminator_learning_rate{self._other_remedy()}. The last good "
                "checkpoint is kept."
            )
        return False

    def _other_remedy(self) -> str:
        """What else helps against a broken loss."""
        alarms, watch = self._settings.alarms, self._watch
        if alarms.non_finite != "roll_back":
            return ", or set training.alarms.non_finite to roll_back"
        if watch.best is None:
            return " (there was no snapshot to return to; training.monitoring.interval_kimg is " + (
                f"{self._settings.monitoring.interval_kimg:g})"
            )
        return f" ({watch.roll_backs} of at most {alarms.most_roll_backs} roll-backs were made)"

    def _react(self, alarms: list[Alarm]) -> None:
        """Tell alarms, and do once what the settings want done."""
        for alarm in alarms:
            self._tell("alarm", name=alarm.name, message=alarm.message, reaction=alarm.reaction)
        reactions = {alarm.reaction for alarm in alarms}
        best = self._watch.best
        if "stop" in reactions:
            self._finished = ALARM
        elif "roll_back" in reactions and best is not None:
            self._trainer.return_to_snapshot(self._folder, best.images)
            self._trainer.rate_factor *= self._settings.alarms.rate_factor
            self._watch = self._watch.rolled_back()
            self._is_at_snapshot = True
            self._begin_line()


class _Clock:
    """Training time over all attempts, and the time since things were last done."""

    def __init__(self, seconds: float, images: int) -> None:
        self._start = time.monotonic() - seconds
        self._checkpoint = time.monotonic()
        self._line = (time.monotonic(), images)

    def seconds(self) -> float:
        return time.monotonic() - self._start

    def images_per_second(self, images: int) -> float:
        """Since the last time this was asked."""
        now = time.monotonic()
        (last, last_images), self._line = self._line, (now, images)
        return (images - last_images) / max(now - last, 1e-9)

    def since_checkpoint(self) -> float:
        return time.monotonic() - self._checkpoint

    def checkpoint_saved(self) -> None:
        self._checkpoint = time.monotonic()
