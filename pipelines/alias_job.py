"""A small job for people who live in Dagster's pages: promote, veto or roll back a model."""

from enum import Enum
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from gan_core.errors import FoundryError

if TYPE_CHECKING:
    from pipelines.ledger import Move


class Act(Enum):
    """What can be done to a model's aliases."""

    PROMOTE = "promote"
    VETO = "veto"
    ROLLBACK = "rollback"


class AliasMove(dg.Config):
    """What a person wants."""

    action: Act = Field(description="promote or veto a version, or roll back to the previous one.")
    version: int | None = Field(None, description="Of the registered model; not for rollback.")
    why: str = Field(description="One sentence for the ledger.")


def build_alias_job(model: str) -> dg.JobDefinition:
    """The job `<model>_aliases`.

    Args:
        model: The registered model's name, which is the pipeline's.
    """

    @dg.op(name=f"move_{model}_aliases", description="Moves the aliases, and the ledger says why.")
    def move(context: dg.OpExecutionContext, config: AliasMove) -> None:
        try:
            moved = _act(model, config, f"run {context.run_id}")
        except FoundryError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error
        context.log.info(f"{model}: {moved.action} version {moved.version}; now {moved.after}")
        context.add_output_metadata({"aliases": moved.after.model_dump(), "why": moved.why})

    @dg.job(
        name=f"{model}_aliases",
        description=f"Promote, veto or roll back versions of the registered model {model}.",
    )
    def aliases() -> None:
        move()

    return aliases


def _act(model: str, config: AliasMove, by: str) -> "Move":
    from pipelines import promotion

    if config.action is Act.ROLLBACK:
        return promotion.rollback(model, config.why, by)
    if config.version is None:
        raise FoundryError(f"{config.action.value} needs a version, but none was given; add it.")
    if config.action is Act.PROMOTE:
        return promotion.promote(model, config.version, config.why, by)
    return promotion.veto(model, config.version, config.why, by)
