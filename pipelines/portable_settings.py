"""Settings as they may leave this machine."""

from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from gan_core.config import PipelineSettings, apply_overrides
from gan_core.notification_settings import NotificationSettings


def without_places(settings: PipelineSettings) -> PipelineSettings:
    """Settings without this machine's folders, people's addresses and what opens closed ones.

    Files go by their own names, and the address of an archive has no user, password and query.
    """
    values = {
        "data.path": settings.data.path,
        "feature_network.weights": settings.feature_network.weights,
    }
    public = {key: Path(value).name for key, value in values.items() if value}
    if settings.data.archive:
        public["data.archive"] = _public_address(settings.data.archive)
    operation = settings.operation.model_copy(update={"owners": ()})
    kept = settings.model_copy(
        update={"notifications": NotificationSettings(), "operation": operation}
    )
    return apply_overrides(kept, public, "settings")


def _public_address(address: str) -> str:
    """What of an archive's address may be known: of a file its name, of others no access.

    >>> _public_address("https://ann:secret@host:8080/faces.zip?token=secret")
    'https://host:8080/faces.zip'
    """
    if "://" not in address:
        return address  # below the mirror, wherever that is
    parts = urlsplit(address)
    if parts.scheme == "file":
        return Path(unquote(parts.path)).name
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
