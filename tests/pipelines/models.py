"""Registered models without files, for tests of what moves their aliases."""

from mlflow import MlflowClient

from pipelines import tracking
from pipelines.registry import BLESSED_TAG

MODEL = "tiny"


def register_versions(count: int, *, blessed: bool = True) -> MlflowClient:
    """A model with versions 1 to `count`, none with an alias."""
    client = tracking.connect()
    client.create_registered_model(MODEL)
    tags = {BLESSED_TAG: "2026-01-01T00:00:00+00:00"} if blessed else {}
    for _ in range(count):
        client.create_model_version(MODEL, "runs:/none/generator", tags=tags)
    return client
