"""A small job for people who live in Dagster's pages: promote, veto or roll back a model."""

import logging
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.tags import MAX_RETRIES_TAG

from gan_core.errors import FoundryError
from pipelines.assets.stage import failure_of

if TYPE_CHECKING:
    from pipelines.ledger import Move


class Act(Enum):
    """What can be done to a model's aliases."""

    PROMOTE = "promote"
    VETO = "veto"
    ROLLBACK = "rollback"


@dataclass(frozen=True)
class AliasMove:
    """What a person wants."""

    action: Act
    why: str
    version: int | None = None


# Plain types: those of `dg.Config` would also take the name of an environment variable.
MOVE_CONFIG = {
    "action": dg.Field(
        dg.Enum.from_python_enum(Act),
        description="Promote or veto a version, or roll back to the previous one.",
    ),
    "version": dg.Field(
        dg.Noneable(int),
        is_required=False,
        description="Of the registered model; not for rollback.",
    ),
    "why": dg.Field(str, description="One sentence for the ledger."),
}


def build_alias_job(model: str) -> dg.JobDefinition:
    """The job `<model>_aliases`.

    Args:
        model: The registered model's name, which is the pipeline's.
    """

    @dg.op(
        name=f"move_{model}_aliases",
        description="Moves the aliases, and the ledger says why.",
        config_schema=MOVE_CONFIG,
    )
    def move(context: dg.OpExecutionContext) -> None:
        try:
            wanted = AliasMove(**context.op_config)
            moved = _act(model, wanted, f"run {context.run_id}", context.log)
        except FoundryError as error:
            raise failure_of(error, context.log) from None
        context.log.info(f"{model}: {moved.action} version {moved.version}; now {moved.after}")
        context.add_output_metadata({"aliases": moved.after.model_dump(), "why": moved.why})

    @dg.job(
        name=f"{model}_aliases",
        tags={MAX_RETRIES_TAG: "0"},  # a move that was made is not made again
        description=f"Promote, veto or roll back versions of the registered model {model}.",
    )
    def aliases() -> None:
        move()

    return aliases


def _act(model: str, wanted: AliasMove, by: str, log: logging.Logger) -> "Move":
    from pipelines import promotion

    if wanted.action is Act.ROLLBACK:
        return promotion.rollback(model, wanted.why, by, log)
    if wanted.version is None:
        raise FoundryError(f"{wanted.action.value} needs a version, but none was given; add it.")
    if wanted.action is Act.PROMOTE:
        return promotion.promote(model, wanted.version, wanted.why, by, log)
    return promotion.veto(model, wanted.version, wanted.why, by)
