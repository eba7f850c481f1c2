"""An evaluation as the tests of cards, pages and tables need it, without any network."""

from gan_core.evaluation.card import MetricCard
from gan_core.evaluation.checks import CheckResult
from gan_core.evaluation.estimate import Estimate
from gan_core.evaluation.report import ClassRow, CurvePoint, Evaluation, SpaceScores


def make_card(network: str = "classifier", samples: int = 1438) -> MetricCard:
    return MetricCard(
        feature_network=network,
        feature_network_sha256="1234567890",
        feature_dim=64,
        feature_network_held_out_accuracy=0.991,
        resize="none",
        samples=samples,
        reference="digits held_out",
        reference_images=359,
        reference_sha256="9876543210",
        resolution="16x16x1",
        preparation="crop, Pillow lanczos",
        seed=20000,
        neighbours=5,
        libraries={"torch": "2.15.0"},
    )


def make_scores(network: str, distance: float, class_coverage: float | None) -> SpaceScores:
    metrics = {"frechet_distance": around(distance), "precision": around(0.9)}
    if class_coverage is not None:
        metrics["class_coverage"] = around(class_coverage)
    return SpaceScores(
        card=make_card(network),
        metrics=metrics,
        floor={"frechet_distance": around(3.4), "precision": around(0.95)},
    )


def around(value: float) -> Estimate:
    return Estimate(value=value, low=0.9 * value, high=1.1 * value)


def make_evaluation(
    class_coverage: float | None = 0.9, distance: float = 4.126, *, passed: bool = True
) -> Evaluation:
    rows = (
        ClassRow(name="0", share=0.6, real_share=0.5, agreement=0.98, diversity=0.9),
        ClassRow(name="1", share=0.4, real_share=0.5, agreement=None, diversity=None),
    )
    return Evaluation(
        gate=make_scores("classifier", distance, class_coverage),
        second=make_scores("random R64 (seed 0)", 11.0, None),
        curve=(
            CurvePoint(samples=360, frechet_distance=2 * distance),
            CurvePoint(samples=1438, frechet_distance=distance),
        ),
        extrapolated=0.7 * distance,
        floor_extrapolated=2.1,
        images={"nearest_distance_ratio": around(1.02)},
        classes=rows if class_coverage is not None else (),
        nearest_pairs=(),
        checks=(
            CheckResult(
                name="collapse",
                passed=passed,
                message="within bounds: recall" if passed else "recall is 0.1, not at least 0.3",
                values={"recall": 0.8 if passed else 0.1},
                bounds={"recall": "at least 0.3"},
            ),
        ),
    )
