"""The errors that a user of the project can cause. What is raised for a bug is not listed here."""


class FoundryError(Exception):
    """A mistake or circumstance that the user can mend.

    Its text is one sentence that names the thing, the value found, and the remedy.
    """


class AlreadyTrainingError(FoundryError):
    """Another process is training the same job."""
