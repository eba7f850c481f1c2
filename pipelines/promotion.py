"""Moving a model's aliases as a person wants, whatever the gate decided.

Each act holds the model's lock from reading the aliases to having moved them.
"""

import contextlib
import logging
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gan_core.errors import FoundryError
from pipelines import ledger, notifications, registry, tracking
from pipelines.ledger import Aliases, Move
from pipelines.registry import BLESSED_TAG, VETOED_TAG, RegisteredVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOST_REASON = 1000  # characters


def after_promotion(before: Aliases, version: int) -> Aliases:
    """The aliases once a version that was not champion is."""
    return Aliases(
        champion=version,
        challenger=None if before.challenger == version else before.challenger,
        previous=before.champion,
    )


def promote(
    model: str,
    version: int,
    why: str,
    by: str | None = None,
    log: logging.Logger = notifications.LOG,
) -> Move:
    """Make a version the champion; a veto of it is lifted. People are told.

    Args:
        model: The registered model.
        version: Which one.
        why: One sentence for the ledger.
        by: Who wants it; by default the person who runs this process.
        log: Says so if people could not be told.

    Raises:
        FoundryError: There is no such version, it is the champion already, it was never shown to
            load, or there is no reason.
    """
    why = _reason(why)
    by = by or ledger.person()
    with _changing(model) as (client, before):
        found = registry.get_version(client, model, version)
        if before.champion == version:
            raise FoundryError(f"{found.name} is the champion already.")
        _require_blessing(found)
        if VETOED_TAG in found.tags:
            client.delete_model_version_tag(model, str(version), VETOED_TAG)
        after = after_promotion(before, version)
        move = ledger.record(client, model, "promote", version, after, by=by, why=why)
    notifications.tell_of_move(move, found, log)
    return move


def veto(model: str, version: int, why: str, by: str | None = None) -> Move:
    """Take a version's aliases away and keep the gate from ever promoting it.

    Args:
        model: The registered model.
        version: Which one; not the champion.
        why: One sentence for the ledger.
        by: Who wants it; by default the person who runs this process.

    Raises:
        FoundryError: There is no such version, it is the champion, or there is no reason.
    """
    why = _reason(why)
    by = by or ledger.person()
    with _changing(model) as (client, before):
        found = registry.get_version(client, model, version)
        if before.champion == version:
            raise FoundryError(
                f"{found.name} is the champion; `gan-foundry rollback {model}` puts the previous "
                "one in its place."
            )
        client.set_model_version_tag(model, str(version), VETOED_TAG, why)
        after = before.model_copy(update=dict.fromkeys(before.of(version)))
        return ledger.record(client, model, "veto", version, after, by=by, why=why)


def rollback(
    model: str, why: str, by: str | None = None, log: logging.Logger = notifications.LOG
) -> Move:
    """Put the previous champion back; the present one is vetoed. People are told.

    Args:
        model: The registered model.
        why: One sentence for the ledger.
        by: Who wants it; by default the person who runs this process.
        log: Says so if people could not be told.

    Raises:
        FoundryError: There is no previous champion, or no reason.
    """
    why = _reason(why)
    by = by or ledger.person()
    with _changing(model) as (client, before):
        if before.champion is None and before.previous is not None:
            raise FoundryError(
                f"{model} has no champion to go back from; `gan-foundry promote {model} "
                f"{before.previous}` makes the previous one champion."
            )
        if before.champion is None or before.previous in (None, before.champion):
            raise FoundryError(
                f"{model} has no previous champion to go back to; `gan-foundry promote {model} "
                "VERSION` chooses another."
            )
        version = registry.get_version(client, model, before.previous)
        _require_blessing(version)
        client.set_model_version_tag(model, str(before.champion), VETOED_TAG, why)
        after = Aliases(
            champion=before.previous,
            challenger=before.challenger,
            previous=_champion_before(client, model, before),
        )
        move = ledger.record(client, model, "rollback", version.version, after, by=by, why=why)
    notifications.tell_of_move(move, version, log)
    return move


def _reason(why: str) -> str:
    """The reason in one line.

    Raises:
        FoundryError: There is none, or not one that the ledger takes.
    """
    why = " ".join(why.splitlines()).strip()
    if not why:
        raise FoundryError("why is empty; say in one sentence why the alias moves.")
    if len(why) > MOST_REASON:
        raise FoundryError(
            f"why has {len(why)} characters, but the ledger takes {MOST_REASON}; say it in one "
            "sentence."
        )
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in why):
        raise FoundryError(
            f"why is {why!a}, which holds characters that cannot be shown; write it in UTF-8."
        )
    return why


def _require_blessing(version: RegisteredVersion) -> None:
    if BLESSED_TAG not in version.tags:
        raise FoundryError(
            f"{version.name} was never shown to load without this project; materialize "
            f"{version.model}/registered_model, which tries what it registers."
        )


def _champion_before(client: "MlflowClient", model: str, aliases: Aliases) -> int | None:
    """Whom the previous champion followed: the nearest that is there still and not vetoed."""
    usable = {
        version.version
        for version in registry.versions(client, model)
        if VETOED_TAG not in version.tags and version.version != aliases.previous
    }
    wanted = aliases.previous
    for move in reversed(ledger.read_moves(client, model)):
        if move.after.champion != wanted:
            continue
        wanted = move.after.previous
        if wanted is None or wanted in usable:
            return wanted
    return None


@contextlib.contextmanager
def _changing(model: str) -> Iterator[tuple["MlflowClient", Aliases]]:
    """Hold a model, with a client of its registry and its aliases as they are."""
    with tracking.tracking_errors():
        client = registry.connect_for_reading()
        known = registry.models(client) if client else []
        if client is None or model not in known:
            raise registry.no_such_model(model, known)
        with registry.changing(model):
            yield client, ledger.settle(client, model)
