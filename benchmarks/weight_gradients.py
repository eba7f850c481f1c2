"""Milliseconds for the gradient of a convolution's weight: oneDNN's kernel, and one matrix product.

The convolutions of three shipped pipelines at their batch, in bf16, on one thread. `product` is
`gan_core.networks.convolution.weight_gradient`; `chosen` is what a training takes on this machine.
On processors with AMX the product wins where images are small; elsewhere oneDNN's kernel should.
"""

import torch
from torch import nn

from benchmarks.common import arguments, report
from benchmarks.kernel_limits import convolutions, median_seconds, title

PIPELINES = ("digits", "mnist", "cifar10_20pct")


def measure(rounds: int) -> dict[str, dict[str, object]]:
    """Both times of each layer, by what a table calls it."""
    from gan_core.training.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    return {
        title(layer, features): compare(layer, features, rounds)
        for pipeline in PIPELINES
        for layer, features in convolutions(pipeline)
    }


def compare(
    layer: nn.Conv2d | nn.ConvTranspose2d, features: torch.Tensor, rounds: int
) -> dict[str, object]:
    """Both times of one layer in milliseconds."""
    from gan_core.networks.convolution import learns_by_products, weight_gradient

    layer.bfloat16().to(memory_format=torch.channels_last)
    features = features.bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        upstream = torch.randn_like(layer(features))
    transposed = isinstance(layer, nn.ConvTranspose2d)
    fine, coarse = (upstream, features) if transposed else (features, upstream)
    side, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])

    def kernel() -> None:
        torch.ops.aten.convolution_backward(
            upstream,
            features,
            layer.weight,
            None,
            layer.stride,
            layer.padding,
            layer.dilation,
            transposed,
            layer.output_padding,
            layer.groups,
            (False, True, False),
        )

    def product() -> None:
        weight_gradient(fine, coarse, side, stride, padding)

    kernels = layer.in_channels * layer.out_channels
    with torch.no_grad():
        return {
            "onednn_ms": 1e3 * median_seconds(kernel, rounds),
            "product_ms": 1e3 * median_seconds(product, rounds),
            "chosen": "product"
            if learns_by_products(coarse.shape[3], kernels, features)
            else "onednn",
        }


def main() -> None:
    """Measure and write the result."""
    options = arguments(__doc__).parse_args()
    found = measure(3 if options.quick else 50)
    report("weight_gradients", {"layers": found}, quick=options.quick)


if __name__ == "__main__":
    main()
