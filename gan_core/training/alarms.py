"""Signs of collapse: what the evaluations during a training say when they are looked at in a row.

Pure functions of settings, of what was found so far and of the newest measurement.
"""

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from gan_core.training_settings import AlarmSettings, Reaction

ROUNDING = 1e-9

AlarmName = Literal["non_finite", "distance", "coverage", "diversity", "discriminator"]


class Measurement(BaseModel):
    """One evaluation during training.

    Attributes:
        images: Real images shown until then.
        distance: Fréchet distance to the training images.
        class_coverage: Share of the classes that the samples show; None without classes.
        diversity: Mean distance of two samples of a class: root mean square over their pixels, as a
            share of the pixels' range; None if no two are of one class.
        discriminator_accuracy: Mean share of images that the discriminator judged rightly since
            the evaluation before; None if there was no journal line since.
    """

    model_config = ConfigDict(frozen=True)

    images: int
    distance: float
    class_coverage: float | None
    diversity: float | None
    discriminator_accuracy: float | None = None


class Watch(BaseModel):
    """What the evaluations of a training found so far.

    Attributes:
        best: The evaluation with the smallest distance.
        best_coverage: The largest class coverage; since a roll-back, if there was one.
        best_diversity: The largest diversity; likewise.
        since_best: Evaluations since the best one.
        in_a_row: For each sign, how many evaluations have just shown it.
        roll_backs: How often the training went back to the best snapshot.
        accuracy_sum: Of the discriminator's accuracy over the steps since the last evaluation.
        accuracy_steps: Those steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    best: Measurement | None = None
    best_coverage: float = 0.0
    best_diversity: float = 0.0
    since_best: int = 0
    in_a_row: dict[str, int] = {}
    roll_backs: int = 0
    accuracy_sum: float = 0.0
    accuracy_steps: int = 0

    def with_accuracy(self, mean: float, steps: int) -> "Watch":
        """With the discriminator's mean accuracy over some more steps."""
        return self._with(
            accuracy_sum=self.accuracy_sum + mean * steps,
            accuracy_steps=self.accuracy_steps + steps,
        )

    @property
    def accuracy(self) -> float | None:
        """The discriminator's mean accuracy since the last evaluation."""
        return self.accuracy_sum / self.accuracy_steps if self.accuracy_steps else None

    def rolled_back(self) -> "Watch":
        """After a return to the best snapshot, where no sign has been seen yet.

        What it shows is all that can be expected of it: classes that only a lost generator showed
        would give the alarm again and again.
        """
        best = self.best
        return self._with(
            best_coverage=(best and best.class_coverage) or 0.0,
            best_diversity=(best and best.diversity) or 0.0,
            since_best=0,
            in_a_row={},
            roll_backs=self.roll_backs + 1,
            accuracy_sum=0.0,
            accuracy_steps=0,
        )

    def _with(self, **values: object) -> "Watch":
        return self.model_copy(update=values)


class Alarm(NamedTuple):
    """A sign of collapse that has been there for long enough.

    Attributes:
        name: Which.
        message: One sentence.
        reaction: `note`, `roll_back` or `stop`, as it is to be done now.
    """

    name: AlarmName
    message: str
    reaction: Reaction


def watch_over(
    watch: Watch, found: Measurement, settings: AlarmSettings
) -> tuple[Watch, list[Alarm]]:
    """Look at an evaluation beside the earlier ones.

    Returns:
        What is known now, and the alarms that this evaluation sets off. An alarm is given once,
        and again if its sign stays for as many evaluations more.
    """
    is_best = watch.best is None or found.distance < watch.best.distance
    signs = _signs(watch, found, settings)
    in_a_row = {name: watch.in_a_row.get(name, 0) + 1 for name in signs}
    if found.discriminator_accuracy is None and "discriminator" in watch.in_a_row:
        in_a_row["discriminator"] = watch.in_a_row["discriminator"]  # nothing new is known
    best = found if is_best else watch.best
    now = watch.model_copy(update={"best": best})  # the snapshot of it is taken before a reaction
    alarms = [
        Alarm(name, signs[name], reaction_now(now, getattr(settings, name), settings))
        for name, count in in_a_row.items()
        if count >= settings.evaluations
    ]
    given = {alarm.name for alarm in alarms}
    known = Watch(
        best=best,
        best_coverage=max(watch.best_coverage, found.class_coverage or 0.0),
        best_diversity=max(watch.best_diversity, found.diversity or 0.0),
        since_best=0 if is_best else watch.since_best + 1,
        in_a_row={name: count for name, count in in_a_row.items() if name not in given},
        roll_backs=watch.roll_backs,
    )
    return known, alarms


def reaction_now(watch: Watch, reaction: Reaction, settings: AlarmSettings) -> Reaction:
    """The reaction, or `stop` when there were too many roll-backs or nothing to return to."""
    if reaction != "roll_back":
        return reaction
    possible = watch.best is not None and watch.roll_backs < settings.most_roll_backs
    return "roll_back" if possible else "stop"


def _signs(watch: Watch, found: Measurement, settings: AlarmSettings) -> dict[AlarmName, str]:
    """The signs that an evaluation shows, each with a sentence about it."""
    signs: dict[AlarmName, str] = {}
    for_long = f"for {settings.evaluations} evaluations"
    if watch.best and found.distance >= settings.distance_ratio * watch.best.distance:
        signs["distance"] = (
            f"the distance has been {settings.distance_ratio:g} times the best or more {for_long}: "
            f"it is {found.distance:.4g}, and was {watch.best.distance:.4g} at "
            f"{watch.best.images / 1000:g} kimg"
        )
    coverage = found.class_coverage
    dropped = 0.0 if coverage is None else watch.best_coverage - coverage
    # 0.7 - 0.5 is a little less than 0.2.
    if coverage is not None and dropped >= settings.coverage_drop - ROUNDING:
        signs["coverage"] = (
            f"samples have shown fewer classes {for_long}: {coverage:.0%}, after "
            f"{watch.best_coverage:.0%}"
        )
    least = (1.0 - settings.diversity_drop) * watch.best_diversity
    if found.diversity is not None and found.diversity <= least:
        signs["diversity"] = (
            f"samples have been alike {for_long}: their pairwise distance is "
            f"{found.diversity:.4f}, after {watch.best_diversity:.4f}"
        )
    accuracy = found.discriminator_accuracy
    if accuracy is not None and accuracy >= settings.discriminator_accuracy:
        signs["discriminator"] = (
            f"the discriminator has won outright {for_long}: it is right on {accuracy:.2%} of "
            "the images"
        )
    return signs
