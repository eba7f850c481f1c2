"""What gc takes, and what it never does."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import filelock
import pytest
from click.testing import CliRunner
from mlflow.entities import ViewType
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from gan_core.errors import FoundryError
from gan_core.generator import load_generator
from pipelines import (
    housekeeping,
    ledger,
    pipeline_files,
    promotion,
    registry,
    tracking,
)
from pipelines.cli import main
from pipelines.home import reproduction_folder, store_folder
from pipelines.housekeeping import Collection, Plan, collect, kept_versions
from pipelines.instance import open_quiet_instance
from pipelines.sweep import place
from tests.pipelines.models import MODEL, register_versions
from tests.pipelines.tiny_pipeline import (
    TinyPipeline,
    metadata,
    place_database,
    tiny_settings,
    write_stripes,
)


@pytest.fixture(scope="module")
def five_runs(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[Path]:
    """A home in which one pipeline ran five times, a version each; the first is champion."""
    folder = tmp_path_factory.mktemp("five")
    write_stripes(folder / "images")
    place_database(migrated_database, folder / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(folder / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        with open_quiet_instance() as instance:
            pipeline = TinyPipeline("stripes", tiny_settings(folder / "images"), instance)
            for seed in range(5):
                mode = "automatic" if seed == 0 else "manual"
                run = pipeline.run(training__seed=seed, promotion=mode)
                assert metadata(run)["registered_model"]["version"] == seed + 1
        yield folder / "home"


@pytest.fixture
def home(five_runs: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same home; what a test changes there, it changes for the next."""
    monkeypatch.setenv("DAGSTER_HOME", str(five_runs))
    return five_runs


def files(home: Path) -> set[Path]:
    return {path for path in home.rglob("*") if path.is_file()}


def plan_of_stripes(found: Collection) -> Plan:
    (plan,) = (plan for plan in found.plans if plan.pipeline == "stripes")
    return plan


def test_a_dry_run_says_what_would_go_and_takes_nothing(home: Path) -> None:
    before = files(home / "store") | files(home / "mlflow" / "artifacts")
    result = CliRunner().invoke(main, ["gc", "--keep", "1", "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    plans = {plan["pipeline"]: plan for plan in json.loads(result.stdout)["pipelines"]}
    plan = plans["stripes"]
    assert plan["versions"] == [4, 3, 2]
    assert len(plan["logged_models"]) == len(plan["mlflow_runs"]) == 3
    assert len(plan["dagster_runs"]) == 3
    stages = [Path(folder).parent.name for folder in plan["folders"]]
    assert sorted(stages) == 3 * ["evaluation"] + 3 * ["generator"] + 3 * ["samples"]
    assert plan["freed_bytes"] > 0
    assert files(home / "store") | files(home / "mlflow" / "artifacts") == before
    assert plans["mnist"]["versions"] == []


def test_a_run_under_way_keeps_gc_from_its_pipeline(home: Path) -> None:
    with open_quiet_instance() as instance:
        job = dg.job(name="stripes")(lambda: None)
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        plan = plan_of_stripes(collect(1, dry_run=False))
        instance.delete_run(run.run_id)
    assert plan.busy == "a run is under way; call gc again when it has ended"
    assert len(registry.versions(tracking.connect(), "stripes")) == 5


def test_a_sweep_under_way_keeps_gc_from_its_pipeline(home: Path) -> None:
    with place.alone(place.sweeps_folder("stripes") / "key", "stripes"):
        plan = plan_of_stripes(collect(1, dry_run=False))
    assert plan.busy == "a sweep is under way; call gc again when it has ended"
    assert len(registry.versions(tracking.connect(), "stripes")) == 5
    assert plan_of_stripes(collect(1, dry_run=True)).versions == [4, 3, 2]


def test_files_that_a_copy_in_another_model_serves_stay(home: Path) -> None:
    client = tracking.connect()
    client.copy_model_version("models:/stripes/2", "production")
    plan = plan_of_stripes(collect(1, dry_run=True))
    assert plan.versions == [4, 3, 2]
    assert len(plan.logged_models) == 2
    client.delete_registered_model("production")


def test_gc_leaves_what_aliases_and_the_newest_need_and_nothing_else(
    home: Path, five_runs: Path
) -> None:
    client = tracking.connect()
    runs = {
        version.version: version.tags["dagster.run_id"]
        for version in registry.versions(client, "stripes")
    }
    expected = load_generator("models:/stripes@champion").sample(4, seed=7)
    interrupted = {version: reproduction_folder("stripes", version) for version in (1, 3, 5)}
    for folder in (*interrupted.values(), reproduction_folder("stripes-3", 3)):
        (folder / "attempt").mkdir(parents=True)
    found = collect(1, dry_run=False)
    assert found.left is None

    assert [version.version for version in registry.versions(client, "stripes")] == [5, 1]
    assert (load_generator("models:/stripes@champion").sample(4, seed=7) == expected).all()
    load_generator("models:/stripes/5")
    with open_quiet_instance() as instance:
        assert {run.run_id for run in instance.get_runs()} == {runs[1], runs[5]}
        assert instance.all_logs(runs[5])
    events = {path.name for path in (home / "history" / "runs").iterdir()}
    assert events == {"index.db", f"{runs[1]}.db", f"{runs[5]}.db"}
    experiment = client.get_experiment_by_name("stripes").experiment_id
    assert len(client.search_runs([experiment], run_view_type=ViewType.ALL)) == 2
    models = home / "mlflow" / "artifacts" / "stripes" / "models"
    assert len({path.relative_to(models).parts[0] for path in files(models)}) == 2
    for stage, count in {
        "raw_images": 1,
        "training_images": 1,
        "feature_network": 1,
        "generator": 2,
        "evaluation": 2,
        "samples": 2,
    }.items():
        folders = [path for path in (home / "store/stripes" / stage).iterdir() if path.is_dir()]
        assert len(folders) == count, stage
    others = reproduction_folder("stripes-3", 3)
    assert {path for path in others.parent.iterdir() if path.is_dir()} == {
        interrupted[1],
        interrupted[5],
        others,
    }

    again = collect(1, dry_run=False)
    plan = plan_of_stripes(again)
    assert (plan.versions, plan.folders, plan.mlflow_runs, plan.dagster_runs) == ([], [], [], [])

    # An unchanged pipeline still does nothing again.
    with open_quiet_instance() as instance:
        settings = tiny_settings(five_runs.parent / "images")
        pipeline = TinyPipeline("stripes", settings, instance)
        shown = metadata(pipeline.run(training__seed=4, promotion="manual"))
    assert {stage for stage, values in shown.items() if not values["reused"]} == set()


def test_the_ledgers_last_two_champions_stay_without_an_alias(mlflow_home: Path) -> None:
    client = register_versions(6)
    for version in (1, 2, 3):
        promotion.promote(MODEL, version, "better")
    promotion.rollback(MODEL, "blurred")  # 2 is champion, 1 previous, 3 has no alias
    promotion.veto(MODEL, 1, "old")
    for version in range(1, 7):
        client.set_model_version_tag(MODEL, str(version), registry.WEIGHTS_TAG, f"w{version}")
    client.delete_model_version_tag(MODEL, "1", registry.VETOED_TAG)
    versions = registry.versions(client, MODEL)
    assert kept_versions(client, MODEL, versions, 1) == {6, 2, 3}
    # What was vetoed stays too, or the same weights would come back as new ones.
    promotion.veto(MODEL, 4, "blurred")
    versions = registry.versions(client, MODEL)
    assert kept_versions(client, MODEL, versions, 1) == {6, 2, 3, 4}
    # Without the version that its training began with, a kept one could not be reproduced.
    client.set_model_version_tag(MODEL, "6", registry.START_TAG, "5")
    client.set_model_version_tag(MODEL, "5", registry.START_TAG, "1")
    versions = registry.versions(client, MODEL)
    assert kept_versions(client, MODEL, versions, 1) == {6, 2, 3, 4, 5}
    assert ledger.current_aliases(client, MODEL).champion == 2


def test_the_version_that_the_next_training_begins_with_stays(
    mlflow_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = register_versions(6)
    for version in range(1, 7):
        client.set_model_version_tag(MODEL, str(version), registry.WEIGHTS_TAG, f"w{version}")
    versions = registry.versions(client, MODEL)
    assert kept_versions(client, MODEL, versions, 1) == {6}
    file = tmp_path / MODEL / "defs.yaml"
    file.parent.mkdir()
    monkeypatch.setattr(pipeline_files, "DEFS_FOLDER", tmp_path)
    for start, kept in (("4", {6, 4}), ("champion", {6})):
        file.write_text(
            f"type: {pipeline_files.COMPONENT_TYPE}\nattributes:\n"
            f"  data: {{source: digits, resolution: 16}}\n  training: {{start_from: {start}}}\n"
        )
        assert kept_versions(client, MODEL, versions, 1) == kept
    file.write_text("type: other")
    with pytest.raises(FoundryError, match="type is 'other'"):
        kept_versions(client, MODEL, versions, 1)


def test_a_mistake_in_a_file_is_told_before_anything_is_removed(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "defs.yaml").write_text("type: other")
    monkeypatch.setattr(pipeline_files, "DEFS_FOLDER", tmp_path)
    with pytest.raises(FoundryError, match="type is 'other'"):
        collect(1, dry_run=False)
    assert not own_home.exists()


def test_the_champion_of_a_rollback_that_was_cut_off_stays(
    mlflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = register_versions(4)
    for version in range(1, 5):
        client.set_model_version_tag(MODEL, str(version), registry.WEIGHTS_TAG, f"w{version}")
    (store_folder() / MODEL).mkdir(parents=True)
    after = ledger.Aliases(champion=1, previous=2)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ledger, "_set_aliases", killed)
        ledger.record(client, MODEL, "rollback", 1, after, by="person", why="blurred")

    kept = kept_versions(client, MODEL, registry.versions(client, MODEL), 1)
    assert kept == {4, 1, 2}
    assert ledger.current_aliases(client, MODEL) != after  # a dry run carries nothing out
    collect(1, dry_run=False)
    assert ledger.current_aliases(client, MODEL) == after
    assert {version.version for version in registry.versions(client, MODEL)} == kept


def test_work_that_is_locked_stays(tmp_path: Path) -> None:
    folder = tmp_path / "key.partial"
    folder.mkdir()
    with filelock.FileLock(tmp_path / "key.lock"):
        housekeeping._remove(folder)
        assert folder.exists()
    (tmp_path / "key.partial.removed" / "left").mkdir(parents=True)  # by a call that was cut off
    housekeeping._remove(folder)
    assert not folder.exists()
    assert not (tmp_path / "key.partial.removed").exists()


def test_what_somebody_else_made_or_threw_away_stays(mlflow_home: Path) -> None:
    client = tracking.connect()
    thrown_away = client.create_experiment("precious")
    client.delete_experiment(thrown_away)
    theirs = client.create_experiment("theirs")
    other_model = client.create_logged_model(theirs, name="theirs").model_id
    client.delete_logged_model(other_model)
    register_versions(3)  # of a model that is no pipeline
    experiment = client.create_experiment("digits")
    foreign = client.create_run(experiment).info.run_id
    for number in range(3):
        key = {tracking.KEY_TAG: f"key{number}"}
        client.set_terminated(client.create_run(experiment, tags=key).info.run_id)
    found = collect(1, dry_run=False)
    assert found.left is None
    assert len(client.search_runs([experiment], run_view_type=ViewType.ALL)) == 2
    assert client.get_run(foreign).info.lifecycle_stage == "active"
    assert client.get_experiment(thrown_away).lifecycle_stage == "deleted"
    store = SqlAlchemyStore(tracking.home.tracking_uri(), mlflow_home.as_uri())
    assert store.get_logged_model(other_model, allow_deleted=True).model_id == other_model
    assert len(registry.versions(client, MODEL)) == 3
    # Nor does anything of the collector's own stay.
    names = {found.name for found in client.search_experiments(view_type=ViewType.ALL)}
    assert names == {"Default", "precious", "theirs", "digits"}


def test_what_still_runs_in_mlflow_was_killed_unless_another_home_can_train_there(
    mlflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tracking.connect()
    experiment = client.create_experiment("digits")
    for number in range(2):
        client.create_run(experiment, tags={tracking.KEY_TAG: f"key{number}"}, start_time=number)
    _newest, killed = (run.info.run_id for run in client.search_runs([experiment]))

    def planned() -> list[str]:
        plans = {plan.pipeline: plan for plan in collect(1, dry_run=True).plans}
        return plans["digits"].mlflow_runs

    assert planned() == [killed]
    elsewhere = mlflow_home.rename(mlflow_home.with_name("elsewhere")) / "mlflow" / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere}")
    assert planned() == []
    assert tracking.connect().get_run(killed).info.status == "RUNNING"


def test_a_collection_that_was_cut_off_is_finished_by_the_next(
    mlflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tracking.connect()
    experiment = client.create_experiment("digits")
    for number in range(2):
        key = {tracking.KEY_TAG: f"key{number}"}
        client.set_terminated(client.create_run(experiment, tags=key).info.run_id)
    with monkeypatch.context() as patch:
        patch.setattr(housekeeping.sys, "executable", "/bin/false")
        left = collect(1, dry_run=False).left
    assert left is not None
    assert left.startswith("their files stay in MLflow until the next gc")
    assert len(client.search_runs([experiment], run_view_type=ViewType.ALL)) == 2
    # As if the collector had been killed after some of its work.
    pending = mlflow_home / housekeeping.PENDING_FILE
    noted = json.loads(pending.read_text())
    noted["runs"].append("0" * 32)
    noted["models"].append("m-" + "0" * 32)
    # As if a gc had been, before it deleted what it had noted.
    (active,) = client.search_runs([experiment])
    active_model = client.create_logged_model(experiment, name="kept").model_id
    noted["runs"].append(active.info.run_id)
    noted["models"].append(active_model)
    pending.write_text(json.dumps(noted))
    assert collect(1, dry_run=False).left is None
    (left,) = client.search_runs([experiment], run_view_type=ViewType.ALL)
    assert left.info.run_id == active.info.run_id
    assert client.get_logged_model(active_model).name == "kept"
    assert not pending.exists()


def test_two_collections_at_once_are_refused(own_home: Path) -> None:
    own_home.mkdir(exist_ok=True)
    with (
        filelock.FileLock(own_home / housekeeping.LOCK_FILE),
        pytest.raises(FoundryError, match="another gc is under way in this home"),
    ):
        collect(1, dry_run=True)


def test_a_run_of_two_pipelines_keeps_gc_from_both(own_home: Path) -> None:
    keys = [dg.AssetKey([name, "generator"]) for name in ("digits", "mnist")]
    assets = [dg.asset(key=key)(lambda: None) for key in keys]
    job = dg.define_asset_job("everything")
    everything = dg.Definitions(assets=assets, jobs=[job]).resolve_job_def("everything")
    with open_quiet_instance() as instance:
        instance.create_run_for_job(
            everything, status=dg.DagsterRunStatus.STARTED, asset_selection=frozenset(keys)
        )
    plans = collect(1, dry_run=False).plans
    assert {plan.pipeline for plan in plans if plan.busy} == {"digits", "mnist"}


def test_what_the_steps_of_deleted_runs_printed_goes_and_nothing_else(own_home: Path) -> None:
    with open_quiet_instance() as instance:
        job = dg.job(name="digits")(lambda: None)
        kept = instance.create_run_for_job(job, status=dg.DagsterRunStatus.SUCCESS).run_id
        gone = instance.create_run_for_job(job, status=dg.DagsterRunStatus.SUCCESS).run_id
        for name in (kept, gone, "digits_new_data"):
            (own_home / "storage" / name / "compute_logs").mkdir(parents=True)
            (own_home / "storage" / name / "compute_logs" / "generator.err").write_text("printed")
        instance.report_engine_event("begun", run_id=gone, job_name="digits")
        instance.delete_run(gone)  # as in Dagster's pages
    collect(1, dry_run=True)
    assert (own_home / "history" / "runs" / f"{gone}.db").exists()
    collect(1, dry_run=False)
    assert {path.name for path in (own_home / "storage").iterdir()} == {kept, "digits_new_data"}
    assert not list((own_home / "history" / "runs").glob(f"{gone}*"))


def test_an_empty_home_has_nothing_to_remove(own_home: Path) -> None:
    result = CliRunner().invoke(main, ["gc", "--keep", "1"])
    assert result.exit_code == 0, result.output
    assert "digits" in result.stdout
    shutil.rmtree(own_home, ignore_errors=True)
    assert CliRunner().invoke(main, ["gc", "--keep", "0"]).exit_code == 2
    assert not store_folder().exists()
