"""Files with known hashes, from a mirror first and their publishers second.

Nothing here knows what is in a file.
"""

import errno
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pooch
import requests
import tenacity

from gan_core.errors import FoundryError, hide_passwords

logger = logging.getLogger(__name__)

MIRROR_VARIABLE = "GAN_FOUNDRY_MIRROR"
TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set.

    Attributes:
        mirror_path: Where it lies below a mirror's base address.
        known_hash: `md5:…` or `sha256:…`, as its publisher states it.
        addresses: Complete addresses of its publishers, best first.
    """

    mirror_path: str
    known_hash: str
    addresses: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.mirror_path.rpartition("/")[2]


def mirror_base() -> str | None:
    """The mirror named by the environment, such as `file:///data`, without a closing slash."""
    base = os.environ.get(MIRROR_VARIABLE, "").strip().rstrip("/")
    if base and "://" not in base:
        raise FoundryError(
            f"{MIRROR_VARIABLE} is {base!r}, but it must be an address such as file:///data "
            "or https://host/data"
        )
    return base or None


def fetch(file: RemoteFile, folder: Path) -> Path:
    """Bring a file into a folder and verify it; a verified copy there is used as it is.

    The mirror of `GAN_FOUNDRY_MIRROR` is asked first, then the publishers. A file appears under
    its name only when its hash is right.

    Raises:
        FoundryError: No address gave the right file; every address is named with what went wrong.
    """
    mirror = mirror_base()
    addresses = ([f"{mirror}/{file.mirror_path}"] if mirror else []) + list(file.addresses)
    problems: list[str] = []
    for address in addresses:
        try:
            _retrieve(address, file, folder)
        except (OSError, ValueError, ImportError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            problems.append(f"{address} ({_reason(error)})")
            shown = hide_passwords(address)
            logger.warning("could not get %s from %s: %s", file.name, shown, _reason(error))
        else:
            return folder / file.name
    remedy = (
        f"set {MIRROR_VARIABLE} to a place that holds {file.mirror_path}, or check the network"
        if not mirror
        else f"put the right file under {MIRROR_VARIABLE} or check the network"
    )
    tried = "; ".join(problems) or "no address is known"
    raise FoundryError(f"{file.name} could not be downloaded: {tried}; {remedy}.")


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(
        (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        )
    ),
    stop=tenacity.stop_after_attempt(3),
    wait=tenacity.wait_exponential(multiplier=0.5, max=5),
    reraise=True,
)
def _retrieve(address: str, file: RemoteFile, folder: Path) -> None:
    # pooch downloads under a temporary name, verifies the hash and renames.
    web = address.startswith(("http://", "https://"))
    downloader: Any = pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS) if web else _fsspec_downloader
    pooch.get_logger().setLevel(logging.WARNING)
    pooch.retrieve(address, file.known_hash, file.name, folder, downloader=downloader)


def _fsspec_downloader(address: str, output_file: str | Path, _: object) -> None:
    try:
        source = fsspec.open(address, "rb").open()
    except OSError:
        raise
    except Exception as error:  # each remote file system raises kinds of its own
        raise OSError(f"{type(error).__name__}: {error}") from error
    with source, Path(output_file).open("wb") as target:
        while block := source.read(1 << 20):
            target.write(block)


def _reason(error: Exception) -> str:
    text = str(error)
    if "does not match the known hash" in text:
        expected, _, found = text.partition("expected ")[2].partition(" but got ")
        return (
            f"the checksum is {found.partition('.')[0]}, not {expected}: the file is truncated, "
            "damaged or another one"
        )
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the download broke off"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT_SECONDS} seconds"
    return text.splitlines()[0] if text else type(error).__name__
