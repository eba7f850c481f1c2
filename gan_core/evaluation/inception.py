"""The network of the published FID numbers, *inception-2015-12-05*, through torch-fidelity.

Numbers compare only with these very weights and with TensorFlow 1's way to resize, which
torch-fidelity reproduces.
"""

from pathlib import Path

import torch
from torch import nn

from gan_core.data.hashing import file_sha256
from gan_core.errors import FoundryError

ADDRESS = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
FILE_NAME = ADDRESS.rpartition("/")[2]


class InceptionNet(nn.Module):
    """InceptionV3 with the weights in a file.

    Args:
        weights_file: As `find_weights` found it.
        sha256: Its hash.

    Raises:
        FoundryError: The file is another one, or holds more than tensors.
    """

    FEATURE_DIM = 2048
    RESIZE = "299x299, bilinear as in TensorFlow 1"

    def __init__(self, weights_file: Path, sha256: str) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self.weights_file = weights_file
        check_weights(weights_file, sha256)
        self._net = FeatureExtractorInceptionV3(
            "inception-v3-compat",
            ["2048", "logits_unbiased"],
            feature_extractor_weights_path=str(weights_file),
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features, shape (n, 2048), and the logits of the Inception score, shape (n, 1008).

        Args:
            images: uint8, shape (n, channels, height, width); grey is shown as RGB, alpha is not
                seen.
        """
        colors = images[:, : 1 if images.shape[1] <= 2 else 3]
        features, logits = self._net(colors.expand(-1, 3, -1, -1).contiguous())
        return features, logits


def check_weights(file: Path, sha256: str) -> None:
    """Raise FoundryError unless the file has this hash and holds tensors only."""
    found = file_sha256(file)
    if found != sha256:
        raise FoundryError(
            f"the weights {file} have the SHA-256 {found}, but {sha256} is asked for; download "
            f"{ADDRESS}, or set feature_network.weights_sha256 if other weights are meant."
        )
    try:
        # torch-fidelity reads it as a pickle: here is made sure that nothing else is in there.
        torch.load(file, map_location="meta", weights_only=True)
    except Exception as error:  # whatever a damaged file makes torch raise
        raise FoundryError(
            f"the weights {file} are not a file of tensors ({type(error).__name__}); download "
            f"{ADDRESS}."
        ) from error


def find_weights(weights: str | None, sha256: str) -> Path:
    """The file of weights, downloaded once.

    Args:
        weights: A file, an address, or None for the mirror and torch-fidelity's own address.
        sha256: Its hash.

    Raises:
        FoundryError: It cannot be had; the error says what to download and where to put it.
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
