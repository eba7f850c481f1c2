from typing import Any

import pytest

from gan_core.training.alarms import Alarm, Measurement, Watch, reaction_now, watch_over
from gan_core.training_settings import AlarmSettings

HEALTHY: dict[str, Any] = {
    "distance": 10.0,
    "class_coverage": 1.0,
    "diversity": 0.3,
    "discriminator_accuracy": 0.7,
}
BAD: dict[str, dict[str, Any]] = {
    "distance": {"distance": 20.0},
    "coverage": {"class_coverage": 0.8},
    "diversity": {"diversity": 0.15},
    "discriminator": {"discriminator_accuracy": 0.999},
}
NOT_YET_BAD: dict[str, dict[str, Any]] = {
    "distance": {"distance": 19.9},
    "coverage": {"class_coverage": 0.81},
    "diversity": {"diversity": 0.151},
    "discriminator": {"discriminator_accuracy": 0.998},
}


def look_at(*rows: dict[str, Any], **settings: Any) -> tuple[Watch, list[list[Alarm]]]:
    """What is known after some evaluations, and the alarms of each."""
    watch, alarms = Watch(), []
    for index, row in enumerate(rows):
        found = Measurement(images=1000 * (index + 1), **{**HEALTHY, **row})
        watch, given = watch_over(watch, found, AlarmSettings(**settings))
        alarms.append(given)
    return watch, alarms


@pytest.mark.parametrize("name", BAD)
def test_a_sign_that_stays_for_three_evaluations_gives_its_alarm(name: str) -> None:
    _, alarms = look_at({}, BAD[name], BAD[name], BAD[name], **{name: "note"})
    assert [len(given) for given in alarms] == [0, 0, 0, 1]
    assert (alarms[3][0].name, alarms[3][0].reaction) == (name, "note")


@pytest.mark.parametrize("name", BAD)
def test_a_sign_that_comes_and_goes_gives_no_alarm(name: str) -> None:
    _, alarms = look_at({}, *[BAD[name], BAD[name], {}] * 3)
    assert not any(alarms)


@pytest.mark.parametrize("name", BAD)
def test_what_is_just_within_the_limit_gives_no_alarm(name: str) -> None:
    _, alarms = look_at({}, *[NOT_YET_BAD[name]] * 6)
    assert not any(alarms)


@pytest.mark.parametrize(("before", "now"), [(0.7, 0.5), (0.6, 0.4), (0.3, 0.1), (1.0, 0.8)])
def test_classes_that_fell_by_exactly_the_drop_give_the_alarm(before: float, now: float) -> None:
    rows = {"class_coverage": before}, {"class_coverage": now}
    _, alarms = look_at(*rows, coverage_drop=0.2, evaluations=1)
    assert [[alarm.name for alarm in given] for given in alarms] == [[], ["coverage"]]


def test_an_alarm_is_given_again_only_after_as_many_evaluations_more() -> None:
    _, alarms = look_at({}, *[BAD["diversity"]] * 7)
    assert [len(given) for given in alarms] == [0, 0, 0, 1, 0, 0, 1, 0]


def test_the_best_evaluation_is_the_one_with_the_smallest_distance() -> None:
    rows = [{"distance": value} for value in (9.0, 5.0, 7.0, 5.0)]
    watch, _ = look_at(*rows)
    assert watch.best is not None
    assert (watch.best.images, watch.best.distance) == (2000, 5.0)
    assert watch.since_best == 2


def test_images_without_classes_have_no_coverage_to_lose() -> None:
    _, alarms = look_at(*[{"class_coverage": None}] * 5)
    assert not any(alarms)


def test_samples_of_which_no_two_are_of_one_class_have_no_diversity_to_lose() -> None:
    watch, alarms = look_at(*[{"diversity": None}] * 5)
    assert not any(alarms)
    assert watch.best_diversity == 0.0


def test_a_training_without_lines_between_evaluations_says_nothing_of_the_discriminator() -> None:
    _, alarms = look_at(*[{"discriminator_accuracy": None}] * 5)
    assert not any(alarms)


def test_evaluations_without_a_line_between_them_do_not_hide_a_discriminator_that_wins() -> None:
    bad, unknown = BAD["discriminator"], {"discriminator_accuracy": None}
    _, alarms = look_at(bad, unknown, bad, unknown, bad, unknown)
    assert [len(given) for given in alarms] == [0, 0, 0, 0, 1, 0]


def test_the_message_of_an_alarm_has_the_numbers() -> None:
    _, alarms = look_at({}, *[{"distance": 31.25}] * 3)
    assert alarms[3][0].message == (
        "the distance has been 2 times the best or more for 3 evaluations: it is 31.25, and was 10 "
        "at 1 kimg"
    )


def test_without_a_snapshot_a_roll_back_is_a_stop() -> None:
    assert reaction_now(Watch(), "roll_back", AlarmSettings()) == "stop"


def test_the_evaluation_that_is_the_best_leaves_a_snapshot_to_return_to() -> None:
    settings = {"evaluations": 1, "discriminator": "roll_back"}
    _, alarms = look_at(BAD["discriminator"], **settings)
    assert [alarm.reaction for alarm in alarms[0]] == ["roll_back"]


def test_after_the_most_roll_backs_the_next_is_a_stop() -> None:
    watch, _ = look_at({})
    settings = AlarmSettings(most_roll_backs=2)
    reactions = []
    for _ in range(3):
        reactions.append(reaction_now(watch, "roll_back", settings))
        watch = watch.rolled_back()
    assert reactions == ["roll_back", "roll_back", "stop"]


def test_after_a_roll_back_signs_are_counted_anew_and_the_best_is_kept() -> None:
    watch, _ = look_at({}, BAD["distance"], BAD["distance"])
    assert watch.in_a_row == {"distance": 2}
    assert watch.rolled_back().in_a_row == {}
    assert (watch.since_best, watch.rolled_back().since_best) == (2, 0)
    assert watch.rolled_back().best == watch.best


def test_the_discriminators_accuracy_is_the_mean_over_all_steps_since_the_evaluation() -> None:
    watch = Watch().with_accuracy(0.5, 10).with_accuracy(1.0, 30)
    assert watch.accuracy == pytest.approx(0.875)
    known, _ = watch_over(watch, Measurement(images=1, **HEALTHY), AlarmSettings())
    assert known.accuracy is None


@pytest.mark.parametrize(
    ("name", "before", "now"),
    [
        ("coverage", {"class_coverage": 1.0}, {"class_coverage": 0.8}),
        ("diversity", {"diversity": 0.3}, {"diversity": 0.15}),
    ],
)
def test_what_the_snapshot_returned_to_has_never_shown_gives_no_second_alarm(
    name: str, before: dict[str, Any], now: dict[str, Any]
) -> None:
    settings = AlarmSettings(**{name: "roll_back"})
    watch, reactions = Watch(), []
    for index in range(12):  # each is the best so far
        row = {**HEALTHY, **(before if index == 0 else now), "distance": 100.0 / (index + 1)}
        watch, alarms = watch_over(watch, Measurement(images=1000 * index, **row), settings)
        reactions.extend(alarm.reaction for alarm in alarms)
        if alarms:
            watch = watch.rolled_back()
    assert reactions == ["roll_back"]
