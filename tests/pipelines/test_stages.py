"""The stages as Dagster runs them, on pipelines that train for a moment."""

import base64
import io
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import PIL.Image
import pytest
from dagster_shared.serdes import serialize_value
from mlflow import MlflowClient, artifacts

from gan_core.config import apply_overrides
from gan_core.data.image_set import open_image_set
from gan_core.errors import FoundryError
from gan_core.evaluation.real_images import floor_rows
from gan_core.evaluation_settings import EvaluationSettings
from gan_core.generator import REGISTERED_FOLDER, ReleasedGenerator
from gan_core.operation_settings import OperationSettings
from gan_core.released_files import WEIGHTS_FILE
from gan_core.training.job import (
    DISCRIMINATOR_FILE,
    JOURNAL_FILE,
    RELEASE_FOLDER,
    START_FOLDER,
    TrainingJob,
)
from gan_core.training.journal import read_journal
from pipelines import evaluating, ledger, promotion, registry, tracking
from pipelines.assets.generator import CURVES_FILE, released_distance
from pipelines.assets.stage import Stage, StageContext, StageResult
from pipelines.assets.tracked_training import JournalFollower
from pipelines.components.gan_pipeline import STAGES
from pipelines.home import store_folder
from pipelines.launch import TrainingCrashedError, run_job
from pipelines.settings_overrides import RESOURCE_KEY, SettingsOverrides
from pipelines.start_weights import fetch_start
from tests.pipelines.tiny_pipeline import (
    Run,
    TinyPipeline,
    data_versions,
    failure,
    metadata,
    open_pipeline,
    place_database,
    tiny_settings,
    write_noise,
    write_stripes,
)

ALL = {stage.name for stage in STAGES}
INLINE_IMAGE_BYTES = 200_000
TWICE_MORE = OperationSettings(retries=2)


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, migrated_database: Path
) -> Iterator[tuple[Path, TinyPipeline, Run]]:
    """A pipeline of labelled images that ran once: its home, itself, and that run."""
    folder = tmp_path_factory.mktemp("labelled")
    write_stripes(folder / "images")
    place_database(migrated_database, folder / "home")
    with (
        pytest.MonkeyPatch.context() as patch,
        open_pipeline("stripes", tiny_settings(folder / "images")) as pipeline,
    ):
        patch.setenv("DAGSTER_HOME", str(folder / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow sets it; this takes it back
        yield folder / "home", pipeline, pipeline.run()


@pytest.fixture
def labelled(
    finished: tuple[Path, TinyPipeline, Run], monkeypatch: pytest.MonkeyPatch
) -> TinyPipeline:
    """The pipeline that ran once, in its own home; other tests have run it again since."""
    monkeypatch.setenv("DAGSTER_HOME", str(finished[0]))
    return finished[1]


@pytest.fixture
def first_run(finished: tuple[Path, TinyPipeline, Run], labelled: TinyPipeline) -> Run:
    """The first run of the labelled pipeline."""
    return finished[2]


@pytest.fixture
def fresh(mlflow_home: Path, tmp_path: Path) -> Iterator[TinyPipeline]:
    """A pipeline of labelled images that never ran, in the test's home."""
    write_stripes(tmp_path / "images")
    with open_pipeline("stripes", tiny_settings(tmp_path / "images")) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def unlabelled_run(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Run:
    """A run on images without classes, in colour and at a resolution where grids grow large."""
    folder = tmp_path_factory.mktemp("unlabelled")
    write_noise(folder / "images")
    place_database(migrated_database, folder / "home")
    settings = tiny_settings(folder / "images", resolution=64, channels=3)
    with (
        pytest.MonkeyPatch.context() as patch,
        open_pipeline("noise", settings) as pipeline,
    ):
        patch.setenv("DAGSTER_HOME", str(folder / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        return pipeline.run()


def test_every_stage_is_materialized_and_shows_what_people_want_to_see(first_run: Run) -> None:
    shown = metadata(first_run)
    expected = {
        "raw_images": {"images", "training_images", "held_out_images", "set_aside", "classes"}
        | {"bytes", "sha256", "licence", "preview", "manifest"},
        "training_images": {"training_images", "held_out_images", "classes", "sha256", "preview"},
        "feature_network": {"kind", "held_out_accuracy", "sha256"},
        "generator": {"kimg", "training_seconds", "images_per_second", "device", "samples"}
        | {"curves", "weights_sha256", "mlflow_run", "mlflow_run_id", "ended_by", "alarms"}
        | {"generator_parameters", "generator_flops", "discriminator_flops", "released_kimg"}
        | {"distance_to_training_images"},
        "evaluation": {"frechet_distance", "floor", "class_coverage", "card", "mlflow_run"}
        | {"kid", "recall", "second_frechet_distance", "summary", "beside_real", "page"},
        "samples": {"count", "grid", "grid_file", "archive", "mlflow_run"},
        "registered_model": {"model", "version", "alias", "decision", "registry_page"},
    }
    assert set(shown) == ALL
    for stage, names in expected.items():
        assert names | {"seconds", "reused"} <= set(shown[stage]), stage
        assert shown[stage]["reused"] is False


def test_images_of_anyone_have_the_floor_of_as_many_and_the_size_of_the_measured_set(
    labelled: TinyPipeline, first_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store_folder() / "stripes" / "training_images"
    images = open_image_set(folder / data_versions(first_run)["training_images"])
    few = EvaluationSettings(samples=20)
    np.savez(tmp_path / "few.npz", images=images.train.images[floor_rows(images, few)])
    # The file was edited since the images were prepared.
    data = labelled.settings.data.model_copy(update={"resolution": 16, "fit": "pad"})
    edited = labelled.settings.model_copy(update={"data": data})
    monkeypatch.setattr(evaluating, "load_pipeline", lambda _: edited)
    monkeypatch.setattr(evaluating, "open_quiet_instance", lambda: nullcontext(labelled.instance))

    found = evaluating.evaluate_images(tmp_path / "few.npz", "stripes")

    assert found.card.samples == 20
    assert found.card.resolution == "8x8x1"
    assert found.gate.floor["frechet_distance"].value == pytest.approx(found.frechet_distance)
    assert found.gate.floor["recall"] == found.gate.metrics["recall"]


def test_one_image_of_anyone_is_refused_before_anything_is_measured(
    labelled: TinyPipeline, first_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "load_pipeline", lambda _: labelled.settings)
    monkeypatch.setattr(evaluating, "open_quiet_instance", lambda: nullcontext(labelled.instance))
    measured = store_folder() / "stripes" / "real_images"
    before = set(measured.iterdir())
    np.savez(tmp_path / "one.npz", images=np.zeros((1, 8, 8, 1), np.uint8))
    with pytest.raises(FoundryError, match=r"one\.npz has one image, but a distance needs"):
        evaluating.evaluate_images(tmp_path / "one.npz", "stripes")
    assert set(measured.iterdir()) == before


def test_counts_and_classes_are_those_of_the_images(first_run: Run) -> None:
    shown = metadata(first_run)
    raw, prepared = shown["raw_images"], shown["training_images"]
    assert (raw["images"], raw["training_images"], raw["held_out_images"]) == (80, 64, 16)
    assert prepared["classes"] == {"across": 32, "down": 32}
    assert (prepared["height"], prepared["width"], prepared["channels"]) == (8, 8, 1)
    assert shown["feature_network"]["kind"] == "classifier"
    assert shown["feature_network"]["trained_on"] == 64
    assert shown["generator"]["kimg"] == pytest.approx(0.32)


def champion(client: MlflowClient) -> registry.RegisteredVersion:
    number = ledger.current_aliases(client, "stripes").champion
    assert number is not None
    return registry.get_version(client, "stripes", number)


def mlflow_status(pipeline: str) -> str:
    """Of the only run."""
    client = tracking.connect()
    experiment = client.get_experiment_by_name(pipeline)
    (run,) = client.search_runs([experiment.experiment_id])
    return str(run.info.status)


def inline_pictures(result: Run) -> dict[str, bytes]:
    """PNG bytes of each picture in Dagster's pages, by stage and name."""
    found = {}
    for stage, values in metadata(result).items():
        for name, value in values.items():
            head, mark, content = str(value).partition("(data:image/png;base64,")
            if mark:
                assert head.startswith("![")
                found[f"{stage} {name}"] = base64.b64decode(content.removesuffix(")"))
    return found


def test_pictures_are_shown_inline(first_run: Run) -> None:
    pictures = inline_pictures(first_run)
    assert set(pictures) == {
        "raw_images preview",
        "training_images preview",
        "generator samples",
        "generator curves",
        "evaluation beside_real",
        "samples grid",
    }
    for content in pictures.values():
        PIL.Image.open(io.BytesIO(content)).verify()


def test_a_data_version_is_the_name_of_the_stages_folder(
    first_run: Run, labelled: TinyPipeline
) -> None:
    versions = data_versions(first_run)
    assert set(versions) == ALL
    for stage in ALL - {"registered_model"}:
        assert (store_folder() / "stripes" / stage / versions[stage]).is_dir()


def test_mlflow_has_the_settings_curves_and_evaluation_of_the_training(first_run: Run) -> None:
    shown = metadata(first_run)
    client = tracking.connect()
    run = client.get_run(shown["generator"]["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["training.kimg"] == "0.32"
    assert run.data.tags["dagster.run_id"] == first_run.run_id
    assert run.data.metrics["evaluation/floor"] == pytest.approx(shown["evaluation"]["floor"])
    rows = client.get_metric_history(run.info.run_id, "training/generator_loss")
    assert [row.step for row in rows] == [80, 160, 240, 320]
    for name in ("generator_parameters", "generator_flops", "discriminator_flops"):
        assert run.data.metrics[f"network/{name}"] == shown["generator"][name] > 0
    rows = client.get_metric_history(run.info.run_id, "monitoring/distance")
    assert [row.step for row in rows] == [160, 320]
    least = shown["generator"]["distance_to_training_images"]
    assert min(row.value for row in rows) == pytest.approx(least)
    stored = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"images", "evaluation", "samples"} <= stored


def test_an_alarm_is_a_warning_in_dagsters_log_and_counted(
    first_run: Run, labelled: TinyPipeline
) -> None:
    result = labelled.run(
        "generator",
        training__monitoring__interval_kimg=0.016,
        training__alarms__evaluations=1,
        training__alarms__distance="note",
        training__alarms__distance_ratio=1.0001,
        training__generator_learning_rate=0.2,
    )
    shown = metadata(result)["generator"]
    assert shown["alarms"] > 0
    warnings = [
        entry.user_message
        for entry in labelled.instance.all_logs(result.run_id)
        if entry.level == logging.WARNING
    ]
    assert any(shown["last_alarm"] in text and text.endswith("noted") for text in warnings)


def test_a_raised_budget_continues_the_finished_training(
    first_run: Run, labelled: TinyPipeline
) -> None:
    result = labelled.run("generator", training__kimg=0.64)
    shown = metadata(result)["generator"]
    assert shown["reused"] is False
    journal = read_journal(Path(shown["folder"]) / JOURNAL_FILE)
    rows = [row for _, row in journal]
    assert [row["kimg"] for row in rows if row["event"] == "budget_raised"] == [0.32]
    assert [row["kimg"] for row in rows if row["event"] == "end"] == [0.32, 0.64]
    history = tracking.connect().get_metric_history(
        shown["mlflow_run_id"], "training/generator_loss"
    )
    assert [row.step for row in history] == [80 * line for line in range(1, 9)]


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(TrainingCrashedError("out of memory"), 3), (dg.DagsterExecutionInterruptedError(), 1)],
)
def test_a_crashed_training_is_tried_again_and_an_interrupted_one_is_not(
    fresh: TinyPipeline, monkeypatch: pytest.MonkeyPatch, error: BaseException, attempts: int
) -> None:
    tried = []

    def ends(*_: object) -> None:
        tried.append(error)
        raise error

    monkeypatch.setattr("pipelines.assets.generator.run_job", ends)
    fresh.run("raw_images", "training_images", "feature_network")
    fresh = replace(fresh, settings=fresh.settings.model_copy(update={"operation": TWICE_MORE}))
    assert not fresh.run("generator").success
    assert len(tried) == attempts


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TrainingCrashedError("out of memory"), "FAILED"),
        (dg.DagsterExecutionInterruptedError(), "KILLED"),
    ],
)
def test_mlflow_says_what_became_of_a_training_and_when_it_goes_on(
    fresh: TinyPipeline, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: str
) -> None:
    seen = []

    def ends(_: Path, follower: JournalFollower) -> None:
        follower([])
        raise error

    def goes_on(folder: Path, follower: JournalFollower) -> None:
        def follow(rows: list[dict[str, Any]]) -> None:
            follower(rows)
            seen.append(mlflow_status(fresh.name))

        run_job(folder, follow)

    fresh.run("raw_images", "training_images", "feature_network")
    monkeypatch.setattr("pipelines.assets.generator.run_job", ends)
    assert not fresh.run("generator").success
    assert mlflow_status(fresh.name) == status
    monkeypatch.setattr("pipelines.assets.generator.run_job", goes_on)
    assert fresh.run("generator").success
    assert set(seen) == {"RUNNING"}
    assert mlflow_status(fresh.name) == "FINISHED"


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(FoundryError("the training diverged"), 1), (RuntimeError("out of memory"), 3)],
)
def test_what_a_person_has_to_mend_is_not_tried_again_although_dagster_would(
    tmp_path: Path, error: Exception, attempts: int
) -> None:
    tried = []

    def fails(_: StageContext) -> StageResult:
        tried.append(error)
        raise error

    settings = tiny_settings(tmp_path).model_copy(update={"operation": TWICE_MORE})
    asset = Stage("generator", fails, "Fails.", resumes=True).build_asset("stripes", settings)
    policy = asset.op.retry_policy
    assert policy is not None
    assert policy.max_retries == 2
    result = dg.materialize(
        [asset],
        resources={RESOURCE_KEY: SettingsOverrides()},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    assert not result.success
    assert len(tried) == attempts


def test_what_led_to_a_mistake_is_recorded_without_passwords(tmp_path: Path) -> None:
    def fails(_: StageContext) -> StageResult:
        reason = OSError("http://ann:secret@host:9 does not answer")
        raise FoundryError("the server does not answer; start it.") from reason

    asset = Stage("evaluation", fails, "Fails.").build_asset("stripes", tiny_settings(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [asset],
            instance=instance,
            resources={RESOURCE_KEY: SettingsOverrides()},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
        recorded = "".join(serialize_value(entry) for entry in instance.all_logs(result.run_id))
    assert failure(result) == "the server does not answer; start it."
    assert "secret" not in recorded
    assert "http://ann:***@host:9 does not answer" in recorded


def test_a_retraining_begins_with_the_champions_weights_or_from_scratch(
    fresh: TinyPipeline,
) -> None:
    from_champion = {"training__start_from": "champion"}
    first = fresh.run(**from_champion)
    assert metadata(first)["generator"]["started_from"] == "scratch"  # there was no champion yet
    assert metadata(first)["registered_model"]["alias"] == "champion"
    folder = Path(metadata(first)["generator"]["folder"])

    second = fresh.run(**from_champion, training__seed=1)
    found = metadata(second)["generator"]
    assert found["started_from"] == f"{fresh.name} version 1 and its discriminator"
    start = Path(found["folder"]) / START_FOLDER
    for name in (f"{RELEASE_FOLDER}/{WEIGHTS_FILE}", DISCRIMINATOR_FILE):
        assert (start / Path(name).name).read_bytes() == (folder / name).read_bytes()
    trained = Path(found["folder"]) / RELEASE_FOLDER / WEIGHTS_FILE
    assert trained.read_bytes() != (start / WEIGHTS_FILE).read_bytes()

    # The champion may be another one by now, but nothing that is trained here has changed.
    unchanged = fresh.run(**from_champion, training__seed=1)
    assert metadata(unchanged)["generator"]["reused"] is True

    scratch = metadata(fresh.run(training__seed=1))["generator"]
    assert scratch["started_from"] == "scratch"
    assert scratch["weights_sha256"] != found["weights_sha256"]


def test_a_raised_budget_continues_what_began_with_the_champion_of_that_time(
    fresh: TinyPipeline,
) -> None:
    from_champion = {"training__start_from": "champion"}
    assert fresh.run(promotion="automatic").success
    assert fresh.run(**from_champion, training__seed=1).success
    newer = metadata(fresh.run(network__latent_dim=5, promotion="manual"))
    champion = newer["registered_model"]["version"]
    promotion.promote(fresh.name, champion, "of another shape, which nothing here begins with")
    raised = metadata(fresh.run(**from_champion, training__seed=1, training__kimg=0.64))
    found = raised["generator"]
    assert found["started_from"] == f"{fresh.name} version 1 and its discriminator"
    rows = [row for _, row in read_journal(Path(found["folder"]) / JOURNAL_FILE)]
    assert "budget_raised" in {row["event"] for row in rows}
    assert found["kimg"] == pytest.approx(0.64)


def test_a_training_that_began_with_random_weights_goes_on_with_them(
    fresh: TinyPipeline, tmp_path: Path
) -> None:
    found = metadata(fresh.run())
    images = open_image_set(Path(found["training_images"]["folder"]))
    place = fresh.name, "champion", fresh.settings.network, images
    began = tmp_path / "began"
    began.mkdir()
    job = TrainingJob.read(Path(found["generator"]["folder"]))
    job.write(began)  # before there was a champion
    assert fetch_start(*place, began) is None
    assert not (began / START_FOLDER).exists()
    begins = tmp_path / "begins"
    begins.mkdir()
    assert fetch_start(*place, begins) is not None


def test_the_distance_shown_is_that_of_what_is_released() -> None:
    rows = [{"kimg": 50.0, "distance": 4.0}, {"kimg": 100.0, "distance": 7.0}]
    assert released_distance(rows, 100.0) == {"distance_to_training_images": 7.0}
    assert released_distance(rows, 50.0) == {"distance_to_training_images": 4.0}
    assert released_distance(rows, 60.0) == {}


def test_a_version_with_other_networks_is_not_begun_with(fresh: TinyPipeline) -> None:
    assert fresh.run().success
    other = fresh.run(training__start_from=1, network__latent_dim=5)
    assert failure(other) == (
        f"training.start_from is {fresh.name} version 1, which has other networks than this "
        "training; set it to scratch, or use the same ones."
    )
    assert "has no version 7; it has 1" in failure(fresh.run(training__start_from=7))


def test_dagsters_and_mlflows_pages_lead_to_each_other(
    labelled: TinyPipeline, first_run: Run
) -> None:
    shown = metadata(first_run)["generator"]
    run = tracking.connect().get_run(shown["mlflow_run_id"])
    assert shown["mlflow_run"].endswith(f"/runs/{shown['mlflow_run_id']}")
    link = f"[Dagster's run {first_run.run_id[:8]}](http://127.0.0.1:3000/runs/{first_run.run_id})"
    assert link in run.data.tags["mlflow.note.content"]


def test_the_mlflow_run_names_the_data_by_their_hash(
    first_run: Run, labelled: TinyPipeline
) -> None:
    shown = metadata(first_run)
    run = tracking.connect().get_run(shown["generator"]["mlflow_run_id"])
    assert shown["training_images"]["sha256"] in run.data.tags.values()


def test_the_first_generator_is_registered_as_champion(
    first_run: Run, labelled: TinyPipeline
) -> None:
    shown = metadata(first_run)
    version = champion(tracking.connect())
    assert version.version == shown["registered_model"]["version"]
    assert version.tags[registry.WEIGHTS_TAG] == shown["generator"]["weights_sha256"]


def test_a_second_run_reuses_every_stage_and_registers_nothing_new(
    first_run: Run, labelled: TinyPipeline
) -> None:
    client = tracking.connect()
    versions = registry.versions(client, "stripes")
    mlflow_run = metadata(first_run)["generator"]["mlflow_run_id"]
    ended = client.get_run(mlflow_run).info.end_time
    again = labelled.run()
    assert {stage: values["reused"] for stage, values in metadata(again).items()} == dict.fromkeys(
        ALL, True
    )
    assert data_versions(again) == data_versions(first_run)
    assert inline_pictures(again) == inline_pictures(first_run)
    assert registry.versions(client, "stripes") == versions
    assert client.get_run(mlflow_run).info.end_time == ended


def test_curves_of_a_training_that_kept_none_are_drawn_again(
    first_run: Run, labelled: TinyPipeline
) -> None:
    shown = metadata(first_run)["generator"]
    (Path(shown["folder"]) / CURVES_FILE).unlink()
    again = metadata(labelled.run("generator"))["generator"]
    assert (again["reused"], again["curves"]) == (True, shown["curves"])


def test_a_changed_setting_redoes_only_what_depends_on_it(labelled: TinyPipeline) -> None:
    shown = metadata(labelled.run(samples__count=5))
    redone = {stage for stage, values in shown.items() if not values["reused"]}
    assert redone == {"samples"}
    assert shown["samples"]["count"] == 5
    assert np.load(shown["samples"]["archive"])["images"].shape == (5, 8, 8, 1)


def test_a_worse_candidate_becomes_challenger_and_the_champion_stays(
    labelled: TinyPipeline,
) -> None:
    client = tracking.connect()
    present = champion(client)
    # Without training its images are grey, those of the champion nearly white like the real ones.
    shown = metadata(labelled.run(training__generator_learning_rate=1e-9, training__seed=1))
    assert shown["registered_model"]["alias"] == "challenger"
    assert f"champion version {present.version}" in shown["registered_model"]["decision"]
    newest = registry.versions(client, "stripes")[0]
    assert newest.version == shown["registered_model"]["version"] > present.version
    assert newest.aliases == ("challenger",)
    assert champion(client).version == present.version

    model = shown["registered_model"]
    assert model["difference"] == pytest.approx(
        model["candidate_distance"] - model["champion_distance"]
    )
    assert 0 < model["difference_low"] < model["difference"] < model["difference_high"]
    assert model["candidate_distance"] == shown["evaluation"]["frechet_distance"]
    assert model["candidate_and_champion"].startswith("![candidate on the left, champion on the")
    run = client.get_run(model["mlflow_run_id"])
    assert run.data.metrics["gate/difference"] == pytest.approx(model["difference"])
    assert run.data.tags["gate.decision"] in model["decision"]
    files = {item.path for item in client.list_artifacts(run.info.run_id, "gate")}
    assert files == {"gate/comparison.json", "gate/candidate_and_champion.png"}
    last = ledger.read_moves(client, "stripes")[-1]
    assert (last.action, last.version, last.why) == (
        "register",
        newest.version,
        newest.tags[registry.DECISION_TAG],
    )
    assert last.numbers["difference_high"] == pytest.approx(model["difference_high"])
    assert last.by.startswith("run ")
    assert last.pictures == f"runs:/{run.info.run_id}/gate/candidate_and_champion.png"


def test_the_same_question_is_not_asked_twice(labelled: TinyPipeline) -> None:
    client = tracking.connect()
    worse = {"training__generator_learning_rate": 1e-9, "training__seed": 2}
    first = metadata(labelled.run(**worse))["registered_model"]
    moves = ledger.read_moves(client, "stripes")
    again = metadata(labelled.run(**worse))["registered_model"]
    assert (again["decision"], again["reused"]) == (first["decision"], True)
    assert ledger.read_moves(client, "stripes") == moves


def test_a_pipeline_that_asks_for_a_persons_yes_waits_as_challenger(fresh: TinyPipeline) -> None:
    shown = metadata(fresh.run(promotion="manual"))["registered_model"]
    assert shown["alias"] == "challenger"
    assert shown["decision"].endswith(
        "there is no champion yet; it waits for `gan-foundry promote stripes 1` (promotion: manual)"
    )
    promotion.promote("stripes", 1, "looks good")
    assert ledger.current_aliases(tracking.connect(), "stripes").champion == 1


def test_a_vetoed_version_is_never_promoted_by_the_gate(fresh: TinyPipeline) -> None:
    fresh.run(promotion="manual")
    promotion.veto("stripes", 1, "blurred")
    shown = metadata(fresh.run())["registered_model"]
    assert (shown["alias"], shown["decision"]) == ("none", "none: it was vetoed: blurred")


def test_a_champion_of_another_shape_is_replaced_by_a_person_alone(fresh: TinyPipeline) -> None:
    fresh.run()
    other = {"data__resolution": 16, "network__generator_channels": [8, 4]}
    shown = metadata(fresh.run(**other))["registered_model"]
    assert shown["alias"] == "challenger"
    assert "champion version 1 makes images of another shape or other classes" in shown["decision"]
    assert ledger.current_aliases(tracking.connect(), "stripes").champion == 1


def test_a_champion_that_cannot_be_read_is_replaced_by_a_person_alone(
    fresh: TinyPipeline, mlflow_home: Path
) -> None:
    fresh.run()
    (weights,) = (mlflow_home / "mlflow").rglob(f"{REGISTERED_FOLDER}/{WEIGHTS_FILE}")
    weights.write_bytes(b"damaged")
    shown = metadata(fresh.run(training__seed=1))["registered_model"]
    assert shown["alias"] == "challenger"
    assert "champion version 1 cannot be read, so that only a person" in shown["decision"]
    assert "models:/stripes/1 cannot be loaded (generator.safetensors: " in shown["decision"]
    assert ledger.current_aliases(tracking.connect(), "stripes").champion == 1


def test_an_evaluation_of_another_generator_registers_nothing(fresh: TinyPipeline) -> None:
    fresh.run()
    fresh.run("generator", training__seed=1)
    assert failure(fresh.run("registered_model")) == (
        "the latest stripes/evaluation is of another generator than the latest stripes/generator; "
        "materialize stripes/evaluation again."
    )
    assert len(registry.versions(tracking.connect(), "stripes")) == 1


def test_a_generator_of_other_images_is_not_registered(fresh: TinyPipeline, tmp_path: Path) -> None:
    fresh.run(*(ALL - {"registered_model"}))
    (tmp_path / "images" / "across" / "00.png").unlink()
    fresh.run("raw_images", "training_images")
    assert failure(fresh.run("registered_model")) == (
        "the latest stripes/generator was trained on other images than the latest "
        "stripes/training_images; materialize stripes/generator and what follows it again."
    )
    assert "stripes" not in registry.models(tracking.connect())


def test_images_are_not_measured_with_a_network_of_others(
    fresh: TinyPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "load_pipeline", lambda _: fresh.settings)
    monkeypatch.setattr(evaluating, "open_quiet_instance", lambda: nullcontext(fresh.instance))
    fresh.run("raw_images", "training_images", "feature_network")
    (tmp_path / "images" / "across").rename(tmp_path / "images" / "level")
    fresh.run("raw_images", "training_images")
    with pytest.raises(FoundryError, match="the latest stripes/feature_network is of other images"):
        evaluating.evaluate_images(tmp_path / "images", "stripes")


def test_weights_that_the_evaluation_will_need_are_missed_before_the_training(
    fresh: TinyPipeline, tmp_path: Path
) -> None:
    values = {
        "evaluation.second_network": "inception",
        "feature_network.weights": str(tmp_path / "w.pth"),
    }
    pipeline = replace(fresh, settings=apply_overrides(fresh.settings, values, "this test"))
    told = failure(pipeline.run())
    assert f"feature_network.weights is {tmp_path / 'w.pth'}, where there is no file" in told
    (tmp_path / "w.pth").write_bytes(b"others")
    assert "but 6726825d" in failure(pipeline.run())
    assert list((store_folder() / "stripes" / "generator").rglob("job.json")) == []


def test_what_is_recorded_is_what_was_trained(fresh: TinyPipeline) -> None:
    values = {"training__seed": 3, "training__discriminator_learning_rate": 0.003}
    fresh.run("raw_images", "training_images", "feature_network", "generator", **values)
    fresh.run("evaluation", "samples")
    shown = metadata(fresh.run("registered_model"))["registered_model"]
    folder = artifacts.download_artifacts(f"models:/stripes/{shown['version']}")
    text = (Path(folder) / REGISTERED_FOLDER / registry.SETTINGS_FILE).read_text()
    training = json.loads(text)["training"]
    assert (training["seed"], training["discriminator_learning_rate"]) == (3, 0.003)
    assert training["device"] == "cpu"
    assert isinstance(training["threads"], int)


def test_a_version_that_does_not_load_elsewhere_gets_no_alias(
    fresh: TinyPipeline, real_blessing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "CARRIED_FILES", ("__init__.py", "serving.py"))
    sentence = failure(fresh.run())
    assert "models:/stripes/1 cannot be used without this project" in sentence
    (version,) = registry.versions(tracking.connect(), "stripes")
    assert version.aliases == ()


def test_a_champion_with_an_alias_of_its_owners_is_still_told_as_the_champion(
    labelled: TinyPipeline,
) -> None:
    client = tracking.connect()
    present = champion(client)
    client.set_registered_model_alias("stripes", "approved", str(present.version))
    shown = metadata(labelled.run())["registered_model"]
    client.delete_registered_model_alias("stripes", "approved")
    assert (shown["version"], shown["alias"]) == (present.version, "champion")


def test_a_run_that_is_started_again_goes_on_with_what_it_had_and_not_with_what_came_since(
    fresh: TinyPipeline,
) -> None:
    prepared = ("raw_images", "training_images")
    failed = fresh.run(*prepared)
    latest = fresh.run(*prepared, "feature_network", data__split_seed=1)
    retried = fresh.run("feature_network", parent=failed)
    again = fresh.run("feature_network", parent=retried)
    networks = [data_versions(run)["feature_network"] for run in (latest, retried, again)]
    assert networks[1] == networks[2] != networks[0]
    assert metadata(again)["feature_network"]["reused"] is True


def test_a_folder_that_was_removed_is_a_sentence(fresh: TinyPipeline) -> None:
    version = data_versions(fresh.run("raw_images"))["raw_images"]
    folder = store_folder() / "stripes" / "raw_images" / version
    shutil.rmtree(folder)
    assert failure(fresh.run("training_images")) == (
        f"the folder {folder} of stripes/raw_images is gone; materialize stripes/raw_images again."
    )


@pytest.mark.parametrize("stage", sorted(ALL - {"raw_images"}))
def test_a_stage_before_its_upstream_is_one_sentence(fresh: TinyPipeline, stage: str) -> None:
    sentence = failure(fresh.run(stage))
    assert sentence.endswith(f"materialize it before stripes/{stage}.")
    assert "was never materialized" in sentence


def test_changed_images_are_listed_again(fresh: TinyPipeline) -> None:
    before = metadata(fresh.run("raw_images"))["raw_images"]
    assert metadata(fresh.run("raw_images"))["raw_images"]["reused"]
    (Path(str(fresh.settings.data.path)) / "down" / "00.png").unlink()
    after = metadata(fresh.run("raw_images"))["raw_images"]
    assert not after["reused"]
    assert after["images"] == before["images"] - 1
    assert after["sha256"] != before["sha256"]


def test_a_wrong_override_is_a_sentence_that_names_what_is_allowed(fresh: TinyPipeline) -> None:
    sentence = failure(fresh.run("raw_images", training__kimg=-1))
    assert sentence.startswith("the run's settings: training.kimg is -1, but it must be greater")
    assert not store_folder().exists()


def test_checks_that_fail_keep_the_generator_from_release(fresh: TinyPipeline) -> None:
    run = fresh.run(evaluation__checks__blocking=True, evaluation__checks__recall_ratio_least=1.0)
    assert not run.success
    outcomes = {check.check_name: check for check in run.get_asset_check_evaluations()}
    assert set(outcomes) == {"collapse", "memorisation", "broken_output"}
    assert "not at least 1" in outcomes["collapse"].description
    assert isinstance(outcomes["collapse"].metadata["recall_ratio"].value, float)
    assert "at least 1" in outcomes["collapse"].metadata["bounds"].value["recall_ratio"]
    done = {event.asset_key.path[-1] for event in run.get_asset_materialization_events()}
    assert "evaluation" in done
    assert not {"samples", "registered_model"} & done


def test_a_failed_check_is_read_again_when_only_the_registration_is_run(
    fresh: TinyPipeline,
) -> None:
    assert fresh.run().success
    values = {"training__seed": 1, "evaluation__checks__contrast_ratio_least": 1.0}
    fresh.run("generator", "evaluation", **values)
    again = fresh.run("registered_model", evaluation__checks__blocking=True, **values)
    shown = metadata(again)["registered_model"]
    assert shown["alias"] == "challenger"
    assert "broken_output failed: " in shown["decision"]
    # It is compared all the same.
    assert "of champion version 1 (difference" in shown["decision"]
    assert "candidate_and_champion" in shown


def test_images_without_classes_pass_the_whole_chain(unlabelled_run: Run) -> None:
    shown = metadata(unlabelled_run)
    assert shown["raw_images"]["classes"] == 0
    assert shown["feature_network"]["kind"] == "random"
    assert "class_coverage" not in shown["evaluation"]
    assert shown["evaluation"]["report"]["class_coverage"] is None
    assert set(np.load(shown["samples"]["archive"])["labels"]) == {-1}
    assert shown["registered_model"]["alias"] == "champion"


def test_inline_pictures_stay_small_at_any_resolution(unlabelled_run: Run) -> None:
    sizes = {name: len(content) for name, content in inline_pictures(unlabelled_run).items()}
    assert {name: size for name, size in sizes.items() if size > INLINE_IMAGE_BYTES} == {}


def test_training_needs_no_tracking_server_and_the_evaluation_ships_what_is_missing(
    fresh: TinyPipeline, dead_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead_server)
    training = fresh.run("raw_images", "training_images", "feature_network", "generator")
    assert "mlflow_run_id" not in metadata(training)["generator"]
    assert f"MLflow at {dead_server} cannot be used" in failure(fresh.run("evaluation"))

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    evaluation = metadata(fresh.run("evaluation"))["evaluation"]
    client = tracking.connect()
    experiment = client.get_experiment_by_name("stripes")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["evaluation/frechet_distance"] == evaluation["frechet_distance"]
    journal = Path(metadata(training)["generator"]["folder"]) / JOURNAL_FILE
    progress = [row for _, row in read_journal(journal) if row["event"] == "progress"]
    rows = client.get_metric_history(run.info.run_id, "training/generator_loss")
    assert [(row.step, row.value) for row in rows] == [
        (row["images"], row["generator_loss"]) for row in progress
    ]
    assert [row.timestamp for row in rows] == [int(row["time"] * 1000) for row in progress]


def test_exported_samples_can_be_made_again_from_their_archive(first_run: Run) -> None:
    shown = metadata(first_run)
    generator = ReleasedGenerator.load(Path(shown["generator"]["folder"]) / RELEASE_FOLDER)
    archive = np.load(shown["samples"]["archive"])
    again = generator.sample(12, seed=int(archive["seed"]), labels=archive["labels"])
    np.testing.assert_array_equal(again, archive["images"])
