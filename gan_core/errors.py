"""The errors that a user of the project can cause. What is raised for a bug is not listed here."""


class FoundryError(Exception):
    """A mistake or circumstance that the user can mend.

    Its text is one sentence that names the thing, the value found, and the remedy.
    """


class OutOfMemoryError(Exception):
    """A training does not fit into the memory that is free now; another time it may."""


class AlreadyTrainingError(FoundryError):
    """Another process is training the same job."""


class UnreadableGeneratorError(FoundryError):
    """What was released is damaged, or another version of the project wrote it."""
