"""What people are told while a pipeline runs, and that no secret is left behind."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from gan_core.config import PipelineSettings, flat_settings
from gan_core.notification_settings import NotificationSettings
from pipelines import ledger, notification_channels, pipeline_files, promotion, registry, tracking
from pipelines.alias_job import build_alias_job
from pipelines.failure_sensor import build_failure_sensor, concerned, is_started_again
from pipelines.instance import open_quiet_instance
from pipelines.ledger import Aliases
from pipelines.portable_settings import without_places
from pipelines.run_processes import PROCESS_TAG
from tests.pipelines.receivers import (
    HOST,
    MailReceiver,
    WebhookReceiver,
    mail_receiver,
    webhook_receiver,
)
from tests.pipelines.tiny_pipeline import (
    Run,
    TinyPipeline,
    metadata,
    place_database,
    tiny_settings,
    write_stripes,
)

VARIABLE = "CHAT_WEBHOOK"
WEBHOOK_SECRET, MAIL_SECRET = "T0WEBHOOKSECRET", "M0MAILSECRET"
PEOPLE = "people@b.org"
NOTIFICATIONS = {"webhook_variable": VARIABLE, "email_to": [PEOPLE]}


@dataclass
class Sensor:
    """The sensor of failures, asked tick after tick as Dagster's daemon does."""

    instance: dg.DagsterInstance
    pipelines: dict[str, PipelineSettings]
    cursor: str | None = None

    def tick(self) -> None:
        sensor = build_failure_sensor(self.pipelines)
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        for _ in range(5):  # a skipped run ends a tick
            context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
            self.cursor = sensor.evaluate_tick(context).cursor


@dataclass
class Scene:
    """A pipeline on disk that tells a webhook and a mail server of this machine."""

    home: Path
    pipeline: TinyPipeline
    webhook: WebhookReceiver
    mail: MailReceiver
    sensor: Sensor
    runs: list[str] = field(default_factory=list)

    def run(self, *stages: str, **overrides: Any) -> Run:
        result = self.pipeline.run(*stages, **overrides)
        self.runs.append(result.run_id)
        self.sensor.tick()
        return result

    def told(self) -> list[str]:
        """The sentences that arrived since the last time, the same by both ways."""
        sentences = self.webhook.take()
        assert [mail.get_content().splitlines()[0] for mail in self.mail.mails] == sentences
        return sentences

    def last_mail(self) -> tuple[str, dict[str, str]]:
        """Subject and numbers of the mail that arrived last; mails are forgotten."""
        subject = self.mail.mails[-1]["Subject"].removeprefix("[GAN Foundry] ")
        _, facts, *_ = self.mail.mails[-1].get_content().split("\n\n")
        self.mail.mails.clear()
        return subject, dict(line.split(": ", 1) for line in facts.strip().splitlines())

    def warnings(self, result: Run) -> list[str]:
        return [
            entry.user_message
            for entry in self.pipeline.instance.all_logs(result.run_id)
            if entry.level >= 30 and "could not be told" in entry.user_message
        ]


@pytest.fixture
def scene(
    own_home: Path, migrated_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    write_stripes(tmp_path / "images")
    settings = tiny_settings(tmp_path / "images")
    values = {**settings.model_dump(mode="json"), "notifications": NOTIFICATIONS}
    (tmp_path / "defs" / "stripes").mkdir(parents=True)
    file = {"type": pipeline_files.COMPONENT_TYPE, "attributes": values}
    (tmp_path / "defs" / "stripes" / "defs.yaml").write_text(json.dumps(file))
    monkeypatch.setattr(pipeline_files, "DEFS_FOLDER", tmp_path / "defs")
    monkeypatch.setattr(notification_channels, "RETRY_SECONDS", 0.0)
    place_database(migrated_database, own_home)
    with (
        open_quiet_instance() as instance,
        webhook_receiver() as webhook,
        mail_receiver(tmp_path) as mail,
    ):
        mail.password = MAIL_SECRET
        monkeypatch.setenv(VARIABLE, webhook.address(f"/services/{WEBHOOK_SECRET}"))
        monkeypatch.setenv("SSL_CERT_FILE", str(mail.certificate))
        monkeypatch.setenv(
            "GAN_FOUNDRY_SMTP_URL", f"smtp://me%40b.org:{MAIL_SECRET}@{HOST}:{mail.port}"
        )
        monkeypatch.setenv(tracking.DAGSTER_UI_VARIABLE, "https://pages.example.org")
        monkeypatch.setenv(tracking.MLFLOW_UI_VARIABLE, "https://mlflow.example.org")
        pipeline = TinyPipeline("stripes", pipeline_files.load_pipeline("stripes"), instance)
        sensor = Sensor(instance, {"stripes": pipeline.settings})
        sensor.tick()
        yield Scene(own_home, pipeline, webhook, mail, sensor)


def test_champion_blocked_and_failure_are_told_once_and_no_secret_is_left(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # A candidate that the gate refuses.
    first = scene.run(gate__distance_over_floor_most=0.001)
    shown = metadata(first)
    (text,) = scene.told()
    reason = shown["registered_model"]["decision"].partition(": ")[2]
    assert "is above 0.001 times the floor" in reason
    assert text == f"stripes version 1 did not become champion: {reason}."
    content = scene.mail.mails[-1].get_content()
    assert f"Run in Dagster: https://pages.example.org/runs/{first.run_id}" in content
    assert "Run in MLflow: https://mlflow.example.org/#/experiments/" in content
    subject, facts = scene.last_mail()
    assert subject == "stripes: version 1 did not become champion"
    distance = shown["evaluation"]["frechet_distance"]
    assert facts.pop("distance").startswith(f"{distance:.4g} (95 % interval ")
    assert facts == {
        "version": "1",
        "floor": f"{shown['evaluation']['floor']:.4g}",
        "champion": "none",
        "Dagster run": first.run_id,
    }

    # The same question again is nothing new.
    again = scene.run("registered_model", gate__distance_over_floor_most=0.001)
    assert metadata(again)["registered_model"]["reused"]
    assert scene.told() == []

    # Ways that are dead do not disturb a run.
    with monkeypatch.context() as dead:
        dead.setenv(VARIABLE, f"http://{HOST}:9/services/{WEBHOOK_SECRET}")
        dead.delenv("GAN_FOUNDRY_SMTP_URL")
        undisturbed = scene.run("registered_model", gate__distance_over_floor_most=0.002)
    assert undisturbed.success
    webhook, mail = scene.warnings(undisturbed)
    assert f"webhook {VARIABLE}: {HOST} cannot be reached (ConnectionError)" in webhook
    assert "the environment variable GAN_FOUNDRY_SMTP_URL is not set" in mail

    # One that waits for a person.
    scene.run("registered_model", promotion="manual")
    (text,) = scene.told()
    assert text == (
        "stripes version 1 did not become champion: there is no champion yet; it waits for "
        "`gan-foundry promote stripes 1` (promotion: manual)."
    )
    assert scene.last_mail()[0] == "stripes: version 1 did not become champion"

    # A new champion.
    assert scene.run("registered_model").success
    assert scene.told() == ["stripes version 1 is the new champion: there is no champion yet."]
    subject, facts = scene.last_mail()
    assert subject == "stripes: version 1 is the new champion"
    assert facts["champion"] == "none → version 1"

    # A generator that fails a check is blocked before, and its failed run is not told as well.
    strict = {"evaluation__checks__blocking": True, "evaluation__checks__recall_ratio_least": 1.0}
    assert not scene.run("evaluation", **strict).success
    (text,) = scene.told()
    assert text.startswith("stripes trained a generator that is not registered, because checks fai")
    assert "(collapse: recall ratio" in text
    subject, facts = scene.last_mail()
    assert subject == "stripes: a generator was not released"
    assert facts.keys() == {"distance", "floor", "Dagster run"}
    assert not scene.run("evaluation", **strict).success
    assert scene.told() == []

    # A run that fails.
    shutil.rmtree(str(scene.pipeline.settings.data.path))
    failed = scene.run("raw_images")
    assert not failed.success
    (text,) = scene.told()
    assert text.startswith("stripes/raw_images failed: ")
    assert str(scene.pipeline.settings.data.path) in text
    assert scene.last_mail() == ("stripes: raw_images failed", {"Dagster run": failed.run_id})
    scene.sensor.tick()
    assert scene.told() == []

    assert_nothing_holds_a_secret(scene, capfd)


def assert_nothing_holds_a_secret(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither Dagster's and MLflow's databases and files, nor the store, nor what was printed."""
    files = [file for file in scene.home.rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert {"mlflow.db", "settings.json", "journal.jsonl", "evaluation.json"} <= names
    secrets = [text.encode() for text in (WEBHOOK_SECRET, MAIL_SECRET)]
    holding = [file for file in files if any(s in file.read_bytes() for s in secrets)]
    assert holding == []
    instance = scene.pipeline.instance
    for run_id in scene.runs:
        log = "".join(map(str, instance.all_logs(run_id)))
        assert "stripes" in log
        assert not any(secret.decode() in log for secret in secrets)
    output = "".join(capfd.readouterr())
    assert not any(secret.decode() in output for secret in secrets)

    client = tracking.connect()
    experiment = client.get_experiment_by_name("stripes")
    for run in client.search_runs([experiment.experiment_id]):
        assert not any(key.startswith("notifications") for key in run.data.params)
    registered = [file for file in files if file.name == "settings.json"]
    assert not any(PEOPLE in file.read_text() for file in registered)


def failed_job(
    name: str, error: Exception, tags: dict[str, str] | None = None, step: str | None = None
) -> dg.JobDefinition:
    @dg.op(name=step or f"{name}__generator")
    def fail() -> None:
        raise error

    @dg.job(name=name, tags=tags)
    def job() -> None:
        fail()

    return job


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Sensor, WebhookReceiver]]:
    """The sensor of a pipeline that never runs, on an instance in memory."""
    values = {
        "data": {"source": "digits", "resolution": 16},
        "notifications": {"webhook_variable": VARIABLE},
    }
    settings = PipelineSettings.model_validate(values)
    silent = settings.model_copy(update={"notifications": NotificationSettings()})
    with dg.DagsterInstance.ephemeral() as instance, webhook_receiver() as webhook:
        monkeypatch.setenv(VARIABLE, webhook.address("/x"))
        sensor = Sensor(instance, {"stripes": settings, "silent": silent})
        sensor.tick()
        yield sensor, webhook


def execute(job: dg.JobDefinition, instance: dg.DagsterInstance) -> None:
    config = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    job.execute_in_process(instance=instance, raise_on_error=False, run_config=config)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (dg.Failure("the disk is full; free some."), "the disk is full; free some."),
        (ValueError("bad number\nand more"), "ValueError: bad number"),
    ],
)
def test_a_failure_names_the_stage_and_the_errors_sentence(
    quick: tuple[Sensor, WebhookReceiver], error: Exception, told: str
) -> None:
    sensor, webhook = quick
    execute(failed_job("stripes", error), sensor.instance)
    sensor.tick()
    assert webhook.take() == [f"stripes/generator failed: {told}"]


@pytest.mark.parametrize(
    ("events", "told"),
    [
        (("failure", "blocked", "champion"), 0),  # the evaluation itself tells it
        (("failure", "champion"), 1),
        (("blocked", "champion"), 0),
    ],
)
def test_a_failed_check_is_told_as_a_failure_to_those_who_are_not_told_of_what_is_blocked(
    quick: tuple[Sensor, WebhookReceiver], events: tuple[str, ...], told: int
) -> None:
    sensor, webhook = quick
    notifications = NotificationSettings(webhook_variable=VARIABLE, events=events)
    settings = sensor.pipelines["stripes"].model_copy(update={"notifications": notifications})
    sensor.pipelines["stripes"] = settings
    key = dg.AssetKey(["stripes", "evaluation"])

    @dg.asset(key=key, check_specs=[dg.AssetCheckSpec("collapse", asset=key, blocking=True)])
    def evaluation() -> dg.MaterializeResult:
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=False)])

    config = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    dg.materialize([evaluation], instance=sensor.instance, raise_on_error=False, run_config=config)
    sensor.tick()
    sentences = webhook.take()
    assert len(sentences) == told
    for sentence in sentences:
        assert sentence.startswith("stripes/evaluation failed: ")
        assert "blocking asset check failed" in sentence
        assert sentence.endswith("stripes/evaluation: collapse")


def test_only_a_run_that_dagster_can_start_again_waits_for_that() -> None:
    again = {"dagster/will_retry": "true"}
    location = RegisteredCodeLocationOrigin("gan_foundry")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), "stripes")
    assert is_started_again(dg.DagsterRun("stripes", tags=again, remote_job_origin=origin))
    assert not is_started_again(dg.DagsterRun("stripes", remote_job_origin=origin))
    assert not is_started_again(dg.DagsterRun("stripes", tags=again))  # of the command line


def test_who_interrupts_a_run_at_the_command_line_knows_and_others_pipelines_are_silent(
    quick: tuple[Sensor, WebhookReceiver],
) -> None:
    sensor, webhook = quick
    interrupted = dg.DagsterExecutionInterruptedError()
    execute(failed_job("stripes", interrupted, {PROCESS_TAG: "here 1 0"}), sensor.instance)
    execute(failed_job("mnist", ValueError("x")), sensor.instance)
    execute(failed_job("silent", ValueError("x")), sensor.instance)
    sensor.tick()
    assert webhook.take() == []
    execute(failed_job("stripes", interrupted), sensor.instance)
    execute(failed_job("stripes_aliases", ValueError("x"), step="move"), sensor.instance)
    sensor.tick()
    assert len(webhook.take()) == 2


def test_a_run_that_died_without_a_stage_is_told(quick: tuple[Sensor, WebhookReceiver]) -> None:
    sensor, webhook = quick
    run = sensor.instance.create_run_for_job(failed_job("stripes", ValueError("x")))
    sensor.instance.report_run_failed(run, "the process of this run was killed")
    sensor.tick()
    assert webhook.take() == ["a run of stripes failed: the process of this run was killed"]


@pytest.mark.parametrize(
    ("job", "assets", "owners", "expected"),
    [
        ("digits", [], [], ["digits"]),
        ("digits_aliases", [], [""], ["digits"]),
        ("digits_large", [], [], ["digits_large"]),
        ("digits_large_aliases", [], ["move_digits"], ["digits_large"]),
        ("digit", [], [], []),
        ("nightly", [], ["mnist"], ["mnist"]),
        ("__ASSET_JOB", ["digits/generator", "digits/samples"], [], ["digits"]),
        ("__ASSET_JOB", ["mnist/generator", "x/y"], ["digits"], ["digits", "mnist"]),
        ("__ASSET_JOB", [], [], []),
    ],
)
def test_a_run_concerns_the_pipelines_of_its_assets_or_of_its_jobs_name(
    job: str, assets: list[str], owners: list[str], expected: list[str]
) -> None:
    run = dg.DagsterRun(
        job_name=job, asset_selection={dg.AssetKey(key.split("/")) for key in assets} or None
    )
    assert concerned(run, owners, ["digits", "digits_large", "mnist"]) == expected


def test_people_who_move_aliases_in_dagsters_pages_are_told_as_well(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tracking.connect()
    client.create_registered_model("stripes")
    tags = {
        registry.BLESSED_TAG: "x",
        registry.DISTANCE_TAG: "1.25",
        registry.INTERVAL_TAG: "1.0 1.5",
        registry.FLOOR_TAG: "0.5",
    }
    for _ in range(2):
        client.create_model_version("stripes", "runs:/none/x", tags=tags)

    def launch(**values: object) -> dg.ExecuteInProcessResult:
        return build_alias_job("stripes").execute_in_process(
            run_config={
                "ops": {"move_stripes_aliases": {"config": values}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            instance=scene.pipeline.instance,
        )

    promotion.promote("stripes", 1, "first")
    launch(action="PROMOTE", version=2, why="sharper")
    run = launch(action="ROLLBACK", why="blurred")
    first, *others = scene.told()
    assert first.endswith(" promoted stripes version 1: first")
    assert others == [
        "somebody in the pages of Dagster promoted stripes version 2: sharper",
        "somebody in the pages of Dagster rolled back to stripes version 1: blurred",
    ]
    assert scene.last_mail() == (
        "stripes: version 1 is the champion now",
        {
            "version": "1",
            "distance": "1.25 (95 % interval 1 to 1.5)",
            "floor": "0.5",
            "champion": "version 2 → version 1",
            "Dagster run": run.run_id,
        },
    )
    launch(action="VETO", version=2, why="no")
    monkeypatch.delenv(VARIABLE)
    dead = launch(action="PROMOTE", version=2, why="after all")
    assert f"the environment variable {VARIABLE} is not set" in str(
        scene.pipeline.instance.all_logs(dead.run_id)
    )
    assert scene.webhook.take() == []


def test_a_mistake_in_the_file_does_not_undo_a_promotion(
    scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = tracking.connect()
    client.create_registered_model("stripes")
    client.create_model_version("stripes", "runs:/none/x", tags={registry.BLESSED_TAG: "x"})
    (tmp_path / "defs" / "stripes" / "defs.yaml").write_text("type: x\n")
    promotion.promote("stripes", 1, "first")
    assert ledger.current_aliases(client, "stripes") == Aliases(champion=1)
    assert "nobody was told that stripes version 1 is the champion: " in caplog.text
    assert scene.told() == []


def test_addresses_of_people_do_not_leave_with_a_model(tmp_path: Path) -> None:
    values = tiny_settings(tmp_path).model_dump(mode="json")
    settings = PipelineSettings.model_validate({**values, "notifications": NOTIFICATIONS})
    assert PEOPLE not in str(flat_settings(without_places(settings)))
