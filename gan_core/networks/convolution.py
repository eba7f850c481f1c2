"""Convolutions over few pixels, whose weights learn by one matrix product.

On processors with AMX, oneDNN's kernel for the gradient of a weight is the slower the fewer pixels
a row has: at 4 it reaches an eighth of a matrix product's rate, as if a row had the 32 places of a
tile for itself. A product over the pixels of all images is several times as fast there. Elsewhere,
and for wider images, the layers are PyTorch's own.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

# Beyond these, laying out the product's operand takes as long as it saves, or longer
# (`benchmarks.weight_gradients`).
WIDEST_PIXELS = 8
KERNELS_PER_SQUARE_PIXEL = 128


def learns_by_products(width: int, kernels: int, features: torch.Tensor) -> bool:
    """Whether the gradient of a layer's weight had better be a matrix product.

    Args:
        width: In pixels, of the coarser of the layer's input and output.
        kernels: Input channels times output channels.
        features: What the layer reads.
    """
    return (
        features.is_cpu
        and features.dtype == torch.bfloat16
        and width <= WIDEST_PIXELS
        and kernels >= KERNELS_PER_SQUARE_PIXEL * width**2
        and bool(torch.cpu.get_capabilities().get("amx_bf16"))
    )


class Conv2d(nn.Conv2d):
    """PyTorch's layer, for square kernels without dilation and groups."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features of shape (n, in_channels, height, width) to (n, out_channels, ...)."""
        kernels = self.in_channels * self.out_channels
        if not learns_by_products(features.shape[3] // self.stride[1], kernels, features):
            return super().forward(features)
        return convolve(features, self.weight, self.bias, self.stride[0], int(self.padding[0]))


class ConvTranspose2d(nn.ConvTranspose2d):
    """PyTorch's layer, for square kernels without bias, dilation and groups."""

    def forward(self, features: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """Features of shape (n, in_channels, height, width) to (n, out_channels, ...)."""
        kernels = self.in_channels * self.out_channels
        if output_size or not learns_by_products(features.shape[3], kernels, features):
            return super().forward(features, output_size)
        weight = self.weight.to(features.dtype)
        return _TransposedConvolution.apply(
            features, weight, self.stride[0], int(self.padding[0]), self.output_padding
        )


def convolve(
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: int,
    padding: int,
) -> torch.Tensor:
    """A convolution whose weight and bias get their gradients apart from the features.

    In a gradient penalty only the features' gradient is asked for, and a function of autograd
    cannot see that: it would compute the weight's as well. As two functions, whose sum this is,
    one of them is not called.
    """
    weight = weight.to(features.dtype)
    bias = None if bias is None else bias.to(features.dtype)
    out = _ConvolutionOfFeatures.apply(features, weight, bias, stride, padding)
    if torch.is_grad_enabled() and weight.requires_grad:
        # Detached, so that no way leads from the features to the second function.
        apart = features.detach(), out.detach()
        out = out + _NothingFromWeight.apply(weight, bias, *apart, stride, padding)
    return out


class _ConvolutionOfFeatures(torch.autograd.Function):
    """The convolution; its gradient is the features', and can be differentiated once more."""

    @staticmethod
    def forward(
        ctx: Any,
        features: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        stride: int,
        padding: int,
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        # What the last steps of the kernel leave over, where the stride does not divide the image.
        rest = [(side + 2 * padding - weight.shape[2]) % stride for side in features.shape[2:]]
        ctx.geometry = stride, padding, rest
        return F.conv2d(features, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        gradient = None
        if ctx.needs_input_grad[0]:
            gradient = _TransposedConvolution.apply(upstream, weight, *ctx.geometry)
        return gradient, None, None, None, None


class _NothingFromWeight(torch.autograd.Function):
    """Zeros, and the gradients that a convolution's weight and bias have where these are added."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        features: torch.Tensor,
        out: torch.Tensor,
        stride: int,
        padding: int,
    ) -> torch.Tensor:
        ctx.save_for_backward(features)
        ctx.geometry = weight.shape[2], stride, padding
        return out.new_zeros(()).expand(out.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (features,) = ctx.saved_tensors
        for_weight = weight_gradient(features, upstream, *ctx.geometry)
        for_bias = upstream.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[1] else None
        return for_weight, for_bias, None, None, None, None


class _TransposedConvolution(torch.autograd.Function):
    """A transposed convolution: a layer of the generator, or a convolution's gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        features: torch.Tensor,
        weight: torch.Tensor,
        stride: int,
        padding: int,
        output_padding: Sequence[int],
    ) -> torch.Tensor:
        ctx.save_for_backward(features, weight)
        ctx.geometry = stride, padding
        return F.conv_transpose2d(features, weight, None, stride, padding, tuple(output_padding))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        for_features = for_weight = None
        if ctx.needs_input_grad[0]:
            for_features = F.conv2d(upstream, weight, None, *ctx.geometry)
        if ctx.needs_input_grad[1]:
            for_weight = weight_gradient(upstream, features, weight.shape[2], *ctx.geometry)
        return for_features, for_weight, None, None, None


def weight_gradient(
    fine: torch.Tensor, coarse: torch.Tensor, side: int, stride: int, padding: int
) -> torch.Tensor:
    """The gradient of a convolution's weight: a product over all pixels of all images.

    Args:
        fine: What the convolution reads, shape (n, in_channels, height, width).
        coarse: The gradient of what it gives, shape (n, out_channels, ...). For a transposed
            convolution it is the other way round.
        side: Of the kernel, in pixels.
        stride: Of the kernel.
        padding: On each side, in pixels.

    Returns:
        Shape (out_channels, in_channels, side, side), laid out as `channels_last`.
    """
    pixels = F.pad(fine.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    windows = pixels.unfold(1, side, stride).unfold(2, side, stride).permute(0, 1, 2, 4, 5, 3)
    columns = windows.reshape(-1, side * side * fine.shape[1])
    rows = coarse.permute(0, 2, 3, 1).reshape(-1, coarse.shape[1])
    product = rows.t() @ columns
    return product.view(-1, side, side, fine.shape[1]).permute(0, 3, 1, 2)
