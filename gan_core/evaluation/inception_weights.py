"""The file of the Inception network's weights: where it is, and whether it is the right one.

Without PyTorch, so that it can be asked before anything is trained.
"""

from pathlib import Path

from gan_core.data.hashing import file_sha256
from gan_core.errors import FoundryError

ADDRESS = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
FILE_NAME = ADDRESS.rpartition("/")[2]


def find_weights(weights: str | None, sha256: str) -> Path:
    """The file of weights, downloaded once.

    Args:
        weights: A file, an address, or None for the mirror and torch-fidelity's own address.
        sha256: Its hash.

    Raises:
        FoundryError: It cannot be had, or is another; the error says what to download and where
            to put it.
    """
    import platformdirs

    from gan_core.data.download import RemoteFile, fetch

    if weights and "://" not in weights:
        file = Path(weights).expanduser()
        if not file.is_file():
            raise FoundryError(
                f"feature_network.weights is {weights}, where there is no file; download {ADDRESS} "
                "to that place."
            )
        require_weights(file, sha256)
        return file
    folder = platformdirs.user_cache_path("gan-foundry") / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    remote = RemoteFile(f"inception/{FILE_NAME}", f"sha256:{sha256}", (weights or ADDRESS,))
    try:
        return fetch(remote, folder)
    except FoundryError as error:
        raise FoundryError(
            f"the FID network cannot be had: {str(error).rstrip('.')}; or download {ADDRESS} "
            "yourself and name the file in feature_network.weights."
        ) from error


def require_weights(file: Path, sha256: str) -> None:
    """Raise FoundryError unless the file has this hash."""
    found = file_sha256(file)
    if found != sha256:
        raise FoundryError(
            f"the weights {file} have the SHA-256 {found}, but {sha256} is asked for; download "
            f"{ADDRESS}, or set feature_network.weights_sha256 if other weights are meant."
        )
