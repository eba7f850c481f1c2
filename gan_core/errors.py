"""The errors that a user of the project can cause. What is raised for a bug is not listed here."""

import re

_PASSWORD = re.compile(r"(://[^\s/@:]*):[^\s\"'<>]+@")  # a database's may hold a /, others an @
_TELLING = "passw|pwd|token|secret|sig|key|credential|auth"  # in names of parameters
_PARAMETER = re.compile(rf"(?i)([?&;][^\s=&;]*(?:{_TELLING})[^\s=&;]*=)[^\s&;,)\"'<>]+")


def hide_passwords(text: str) -> str:
    """A text with `***` in the place of the passwords of the addresses in it.

    >>> hide_passwords("the database postgresql://ann:secret@host/mlflow")
    'the database postgresql://ann:***@host/mlflow'
    """
    return _PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its name where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


class FoundryError(Exception):
    """A mistake or circumstance that the user can mend.

    Its text is one sentence that names the thing, the value found, and the remedy. Passwords in
    addresses are not repeated: where it is shown, others may read it.
    """

    def __str__(self) -> str:
        return hide_passwords(super().__str__())


class OutOfMemoryError(Exception):
    """A training does not fit into the memory that is free now; another time it may."""


class AlreadyTrainingError(FoundryError):
    """Another process is training the same job."""


class ForeignCheckpointError(FoundryError):
    """A checkpoint is damaged, or another version of the project wrote it."""


class UnreadableGeneratorError(FoundryError):
    """What was released is damaged, or another version of the project wrote it."""
