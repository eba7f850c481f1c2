"""The network of the published FID numbers, *inception-2015-12-05*, through torch-fidelity.

Numbers compare only with these very weights and with TensorFlow 1's way to resize, which
torch-fidelity reproduces.
"""

from pathlib import Path

import torch
from torch import nn

from gan_core.errors import FoundryError
from gan_core.evaluation.inception_weights import ADDRESS, require_weights


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
    require_weights(file, sha256)
    try:
        # torch-fidelity reads it as a pickle: here is made sure that nothing else is in there.
        torch.load(file, map_location="meta", weights_only=True)
    except Exception as error:  # whatever a damaged file makes torch raise
        raise FoundryError(
            f"the weights {file} are not a file of tensors ({type(error).__name__}); download "
            f"{ADDRESS}."
        ) from error
