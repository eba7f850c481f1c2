"""The ledger: every move of a model's aliases, kept in the registry beside the model itself.

A move is one tag of the registered model. Writing it is the act: the aliases are set after it, and
whoever comes next under the lock sets them if that was cut off.
"""

import datetime
import getpass
import os
import socket
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from mlflow import MlflowClient

PREFIX = "gan_foundry.ledger."
SETTLED_TAG = "gan_foundry.ledger_settled"  # number of the last move whose aliases are set

Action = Literal["register", "promote", "veto", "rollback", "outside"]


class Aliases(BaseModel):
    """Which version each alias names; None for no version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    champion: int | None = None
    challenger: int | None = None
    previous: int | None = None

    @property
    def versions(self) -> set[int]:
        """The versions that an alias names."""
        return {number for number in self.model_dump().values() if number is not None}

    def of(self, version: int) -> list[str]:
        """The aliases that name a version."""
        return [name for name, number in self.model_dump().items() if number == version]


class Move(BaseModel):
    """One entry.

    Attributes:
        number: Counts from 1.
        time: When, UTC.
        action: What was done; `outside` where somebody moved aliases by other means.
        version: The version that it was about.
        by: `run <Dagster's id>`, or `person <name>@<machine>`.
        why: One sentence.
        before: The aliases that it found.
        after: The aliases that it left.
        numbers: What was measured for it.
        pictures: MLflow's address of the grids of both, if they were compared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    number: int
    time: datetime.datetime
    action: Action
    version: int
    by: str
    why: str
    before: Aliases
    after: Aliases
    numbers: dict[str, float] = {}
    pictures: str | None = None


def person() -> str:
    """Who sits here, for `Move.by`; a container's user may have no name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    return f"person {name}@{socket.gethostname()}"


def read_moves(client: "MlflowClient", model: str) -> list[Move]:
    """All moves, oldest first."""
    tags = client.get_registered_model(model).tags
    return [
        Move.model_validate_json(value)
        for key, value in sorted(tags.items())
        if key.startswith(PREFIX)
    ]


def current_aliases(client: "MlflowClient", model: str) -> Aliases:
    """The aliases as the registry has them."""
    found = client.get_registered_model(model).aliases
    return Aliases(
        **{name: int(found[name]) for name in Aliases.model_fields if found.get(name) is not None}
    )


def settled_aliases(client: "MlflowClient", model: str) -> Aliases:
    """The aliases as `settle` leaves them: a move that was cut off counts as carried out."""
    moves = read_moves(client, model)
    if moves and _is_cut_off(client, model, moves[-1]):
        return moves[-1].after
    return current_aliases(client, model)


def _is_cut_off(client: "MlflowClient", model: str, last: Move) -> bool:
    settled = int(client.get_registered_model(model).tags.get(SETTLED_TAG, "0"))
    return settled < last.number


def settle(client: "MlflowClient", model: str) -> Aliases:
    """Bring ledger and aliases together; to be called under the model's lock.

    A move that was cut off between its entry and its aliases is carried out. Aliases that somebody
    moved by other means stay where they are, and the ledger gets an entry of it.

    Returns:
        The aliases.
    """
    moves = read_moves(client, model)
    if not moves:
        return current_aliases(client, model)
    last = moves[-1]
    if _is_cut_off(client, model, last):
        _set_aliases(client, model, last)
    found = current_aliases(client, model)
    if found != last.after:
        expected = last.after.model_dump()
        new = (number for name, number in found.model_dump().items() if number != expected[name])
        version = next(filter(None, new), last.version)
        why = "aliases were moved by other means than gan-foundry"
        record(client, model, "outside", version, found, by="unknown", why=why)
    return found


def record(
    client: "MlflowClient",
    model: str,
    action: Action,
    version: int,
    after: Aliases,
    *,
    by: str,
    why: str,
    numbers: dict[str, float] | None = None,
    pictures: str | None = None,
) -> Move:
    """Write a move and set the aliases; to be called under the model's lock, after `settle`."""
    moves = read_moves(client, model)
    move = Move(
        number=moves[-1].number + 1 if moves else 1,
        time=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
        action=action,
        version=version,
        by=by,
        why=why,
        before=moves[-1].after if moves else current_aliases(client, model),
        after=after,
        numbers=numbers or {},
        pictures=pictures,
    )
    client.set_registered_model_tag(model, f"{PREFIX}{move.number:06}", move.model_dump_json())
    _set_aliases(client, model, move)
    return move


def _set_aliases(client: "MlflowClient", model: str, move: Move) -> None:
    # The champion first: consumers never find none where there was one.
    present = current_aliases(client, model).model_dump()
    for name, number in move.after.model_dump().items():
        if number == present[name]:
            continue
        if number is None:
            client.delete_registered_model_alias(model, name)
        else:
            client.set_registered_model_alias(model, name, str(number))
    client.set_registered_model_tag(model, SETTLED_TAG, str(move.number))
