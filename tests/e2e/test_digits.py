"""The newcomer's command on the shipped digits pipeline, as it is shipped."""

from pathlib import Path

import dagster as dg
import mlflow
import numpy as np
import PIL.Image
import pytest
import torch

from gan_core.config import flat_settings
from gan_core.generator import ReleasedGenerator
from gan_core.training.job import RELEASE_FOLDER
from pipelines.evaluating import latest_folder
from pipelines.evaluator import open_evaluator
from pipelines.pipeline_files import load_pipeline
from tests.e2e.conftest import FinishedRun, run_command

STAGES = [
    "raw_images",
    "training_images",
    "feature_network",
    "generator",
    "evaluation",
    "samples",
    "registered_model",
]

pytestmark = pytest.mark.slow


def test_run_json_is_one_object_with_all_that_a_program_needs(finished_run: FinishedRun) -> None:
    summary = finished_run.result.json

    assert summary["pipeline"] == summary["model"] == "digits"
    assert summary["version"] == 1
    assert summary["alias"] == "champion"
    assert set(STAGES) <= set(summary["seconds"])
    assert summary["reused"] == []
    assert summary["samples"]["count"] == 64
    for file in (summary["samples"]["grid"], summary["samples"]["archive"]):
        assert Path(file).is_absolute()
        assert Path(file).is_file()


def test_the_shipped_recipe_makes_good_digits_of_every_class(finished_run: FinishedRun) -> None:
    evaluation = finished_run.result.json["evaluation"]

    assert 0 < evaluation["frechet_distance"] < 2 * evaluation["floor"]
    assert evaluation["class_coverage"] == 1.0
    assert evaluation["label_agreement"] > 0.95
    card = evaluation["card"]
    assert card["feature_network_held_out_accuracy"] > 0.97
    assert card["samples"] == 1438
    assert card["reference_images"] == 359
    assert card["feature_network_sha256"][:8] in card["line"]


def test_people_see_stages_progress_and_a_table_on_standard_error(
    finished_run: FinishedRun,
) -> None:
    shown = finished_run.result.stderr

    assert all(f"✓ {stage}" in shown for stage in STAGES)
    for words in ("kimg", "img/s", "s left", "floor, real against real", "class coverage"):
        assert words in shown
    assert finished_run.result.json["samples"]["grid"] in shown
    assert "gan-foundry sample digits" in shown


def test_a_run_from_the_command_line_stands_in_dagster(
    finished_run: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(finished_run.home))
    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(finished_run.result.json["dagster_run_id"])
        assert run is not None
        assert run.status == dg.DagsterRunStatus.SUCCESS
        assert run.job_name == "digits"
        for stage in STAGES:
            event = instance.get_latest_materialization_event(dg.AssetKey(["digits", stage]))
            assert event is not None
            assert event.run_id == run.run_id


def test_mlflow_has_settings_curves_grids_evaluation_and_the_way_back(
    finished_run: FinishedRun,
) -> None:
    summary = finished_run.result.json
    client = mlflow.MlflowClient(finished_run.tracking_uri)
    run = client.get_run(summary["mlflow_run_id"])

    settings = set(flat_settings(load_pipeline("digits")))
    # Whom to tell and who owns it stays on this machine.
    people = {key for key in settings if key.startswith("notifications.")} | {"operation.owners"}
    assert settings - people <= set(run.data.params)
    assert not people & set(run.data.params)
    assert run.info.status == "FINISHED"
    assert run.data.tags["dagster.run_id"] == summary["dagster_run_id"]
    assert run.data.tags["dagster.run_url"].endswith(f"/runs/{summary['dagster_run_id']}")
    assert run.data.tags["environment.torch"]
    assert len(run.data.tags["data.sha256"]) == 64
    curve = client.get_metric_history(run.info.run_id, "training/generator_loss")
    assert len(curve) == 150  # 150,016 images: a line for each whole kimg
    assert {"evaluation/evaluation.json", "evaluation/evaluation.html"} == {
        item.path for item in client.list_artifacts(run.info.run_id, "evaluation")
    }
    assert run.data.metrics["evaluation/frechet_distance"] == pytest.approx(
        summary["evaluation"]["frechet_distance"]
    )
    grids = [item.path for item in client.list_artifacts(run.info.run_id, "images")]
    assert len({name.split("+")[2] for name in grids}) == 16  # steps: the start and each 10 kimg


def test_the_archive_makes_the_exported_images_again(finished_run: FinishedRun) -> None:
    import torch

    from gan_core.generator import load_generator

    archive = Path(finished_run.result.json["samples"]["archive"])
    saved = np.load(archive)
    (release,) = (finished_run.home / "store" / "digits" / "generator").glob("*/generator")
    generator = load_generator(release)
    group = generator.images(
        torch.from_numpy(saved["latents"][:32]), torch.from_numpy(saved["labels"][:32])
    )
    np.testing.assert_array_equal(group, saved["images"][:32])
    png = np.asarray(PIL.Image.open(archive.with_name("images") / "00005.png"))
    np.testing.assert_array_equal(png, saved["images"][5, :, :, 0])


def test_sample_writes_images_of_a_registered_model(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    arguments = ["-n", "20", "--seed", "3", "--json"]
    first = run_command(
        finished_run.home, "sample", "digits", *arguments, "--out", str(tmp_path / "a")
    )
    second = run_command(
        finished_run.home, "sample", "digits@champion", *arguments, "--out", str(tmp_path / "b")
    )

    assert first.status == second.status == 0, first.stderr + second.stderr
    assert len(list((tmp_path / "a" / "images").glob("*.png"))) == 20
    assert Path(first.json["grid"]).is_file()
    which = [(result.json["model"], result.json["version"]) for result in (first, second)]
    assert which == [("digits", 1)] * 2
    images = [np.load(result.json["archive"])["images"] for result in (first, second)]
    np.testing.assert_array_equal(*images)


def test_models_lists_versions_with_aliases(finished_run: FinishedRun) -> None:
    listed = run_command(finished_run.home, "models", "digits", "--json").json

    assert listed["name"] == "digits"
    assert [(v["version"], v["aliases"]) for v in listed["versions"]] == [(1, ["champion"])]


def test_images_of_anyone_are_scored_against_the_pipelines_real_ones(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    archive = finished_run.result.json["samples"]["archive"]
    folder = Path(archive).parent / "images"
    scored = run_command(
        finished_run.home, "evaluate", str(folder), "--against", "digits", "--json"
    )
    found = scored.json
    assert found["card"]["samples"] == 64
    assert (
        found["card"]["feature_network_sha256"]
        == (finished_run.result.json["evaluation"]["card"]["feature_network_sha256"])
    )
    for name in ("frechet_distance", "kid", "precision", "recall", "density", "coverage"):
        low, high = found[f"{name}_ci"]
        assert low <= found[name] <= high
    shown = run_command(finished_run.home, "evaluate", archive, "--against", "digits")
    assert "frechet distance" in shown.stdout
    assert "memorisation" in shown.stdout

    noise = tmp_path / "noise.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (100, 16, 16, 1), dtype=np.uint8)
    np.savez(noise, images=pixels)
    bad = run_command(
        finished_run.home, "evaluate", str(noise), "--against", "digits", "--json"
    ).json
    assert bad["frechet_distance_ci"][0] > found["frechet_distance_ci"][1]
    assert bad["passed"] is False


class _HalfDead(torch.nn.Module):
    """A generator that does not look at the later half of its latents."""

    def __init__(self, generator: torch.nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        alive = torch.arange(latents.shape[1]) < latents.shape[1] // 2
        return self.generator(latents * alive, labels)


def test_the_shipped_generator_passes_the_checks_and_with_half_its_latents_dead_it_does_not(
    finished_run: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(finished_run.home))
    with dg.DagsterInstance.get() as instance:
        folders = {
            stage: latest_folder(instance, "digits", stage)
            for stage in ("training_images", "feature_network", "generator")
        }
    evaluator = open_evaluator(
        "digits",
        load_pipeline("digits"),
        folders["training_images"],
        folders["feature_network"],
        "cpu",
    )
    healthy = ReleasedGenerator.load(folders["generator"] / RELEASE_FOLDER)
    found, _ = evaluator.evaluate(healthy)
    assert found.passed, found.checks
    recorded = finished_run.result.json["evaluation"]["frechet_distance"]
    assert found.frechet_distance == pytest.approx(recorded, rel=1e-3)

    dead = ReleasedGenerator(_HalfDead(healthy._module), healthy.config, "cpu")
    found, _ = evaluator.evaluate(dead)
    assert [check.name for check in found.checks if not check.passed] == ["collapse"]
