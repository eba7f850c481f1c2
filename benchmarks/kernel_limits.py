"""How near the machine's limit the networks' kernels run, in GFLOP/s of one thread.

A matrix product of 1024 x 1024 x 1024 is what the machine gives. Beside it stand the convolutions
of the MNIST pipeline's networks at its batch, forward and backward, in bf16 and in fp32. Whatever
the loop around them does, a step in bf16 gains over one in fp32 what these gain.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.common import arguments, report, shipped_settings

PRODUCT = "matrix product"
PRODUCT_SIDE = 1024
CLASSES = 10


def measure(rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """GFLOP/s by kernel, direction and precision."""
    from gan_core.training.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    layers = convolutions("mnist")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, precision in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        rates = {PRODUCT: product_rates(precision, rounds)}
        rates |= {
            title(layer, x): convolution_rates(layer, x.to(precision), rounds)
            for layer, x in layers
        }
        for kernel, directions in rates.items():
            for direction, rate in directions.items():
                found.setdefault(kernel, {}).setdefault(direction, {})[name] = rate
    return found


def convolutions(pipeline: str) -> list[tuple[nn.Conv2d | nn.ConvTranspose2d, torch.Tensor]]:
    """The convolutions of a pipeline's networks, each with what it reads."""
    from gan_core.networks import build_discriminator, build_generator

    settings = shipped_settings(pipeline)
    shape = settings.data.height, settings.data.width, settings.data.channels
    found: list[tuple[nn.Conv2d | nn.ConvTranspose2d, torch.Tensor]] = []

    def keep_input(
        layer: nn.Conv2d | nn.ConvTranspose2d, inputs: tuple[torch.Tensor, ...], _: torch.Tensor
    ) -> None:
        found.append((layer, inputs[0].detach()))

    generator = build_generator(settings.network, shape, CLASSES)
    discriminator = build_discriminator(settings.network, shape, CLASSES)
    hooks = [
        layer.register_forward_hook(keep_input)
        for layer in (*generator.modules(), *discriminator.modules())
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    ]
    batch_size = settings.training.batch_size
    labels = torch.zeros(batch_size, dtype=torch.int64)
    with torch.no_grad():
        images = generator(torch.randn(batch_size, settings.network.latent_dim), labels)
        discriminator(images, labels)
    for hook in hooks:
        hook.remove()
    return found


def product_rates(precision: torch.dtype, rounds: int) -> dict[str, float]:
    """GFLOP/s of a matrix product."""
    left, right = torch.randn(2, PRODUCT_SIDE, PRODUCT_SIDE).to(precision)
    seconds = median_seconds(lambda: left @ right, rounds)
    return {"forward": 2e-9 * PRODUCT_SIDE**3 / seconds}


def convolution_rates(
    layer: nn.Conv2d | nn.ConvTranspose2d, features: torch.Tensor, rounds: int
) -> dict[str, float]:
    """GFLOP/s forward and backward, in the precision of the features."""
    layer.to(features.dtype).to(memory_format=torch.channels_last)
    x = features.contiguous(memory_format=torch.channels_last).requires_grad_()
    out = layer(x)
    upstream = torch.randn_like(out)
    forward = median_seconds(lambda: layer(x), rounds)
    backward = median_seconds(
        lambda: torch.autograd.grad(out, (x, layer.weight), upstream, retain_graph=True), rounds
    )
    # A weight meets every input pixel of a transposed convolution, else every output pixel.
    pixels = x if isinstance(layer, nn.ConvTranspose2d) else out
    operations = 2e-9 * layer.weight.numel() * pixels[:, 0].numel()
    return {"forward": operations / forward, "backward": 2 * operations / backward}


def title(layer: nn.Conv2d | nn.ConvTranspose2d, features: torch.Tensor) -> str:
    """What a table calls the kernel."""
    kind = "transposed" if isinstance(layer, nn.ConvTranspose2d) else "convolution"
    size = "x".join(map(str, layer.kernel_size))
    width = 2 * features.shape[2] if kind == "transposed" else features.shape[2] // layer.stride[0]
    return (
        f"{kind} {size}, {layer.in_channels} to {layer.out_channels} channels, "
        f"{features.shape[2]} to {width} pixels"
    )


def median_seconds(call: Callable[[], object], rounds: int) -> float:
    """Of one call, after some that warm up."""
    for _ in range(5):
        call()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    """Measure and write the result."""
    options = arguments(__doc__).parse_args()
    found = measure(3 if options.quick else 50)
    report("kernel_limits", {"gflops": found}, quick=options.quick)


if __name__ == "__main__":
    main()
