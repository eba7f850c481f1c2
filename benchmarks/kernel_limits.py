"""How near the machine's limit the networks' kernels run, in GFLOP/s of one thread.

A matrix product of 1024 x 1024 x 1024 is what the machine gives. Beside it stand the convolutions
of the MNIST pipeline's networks at its batch, forward and backward, in bf16 and in fp32. Whatever
the loop around them does, a step in bf16 gains over one in fp32 what these gain.
"""

import statistics
import time
from collections.abc import Callable

from benchmarks.common import arguments, report, shipped_settings

PRODUCT = "matrix product"


def measure(rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """GFLOP/s by kernel, direction and precision."""
    import torch
    from torch import nn

    from gan_core.networks import build_discriminator, build_generator
    from gan_core.training.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    settings = shipped_settings("mnist")
    shape = (settings.data.resolution, settings.data.resolution, 1)
    batch = settings.training.batch_size
    latents = torch.randn(batch, settings.network.latent_dim)
    labels = torch.zeros(batch, dtype=torch.int64)
    layers: list[tuple[nn.Module, torch.Tensor]] = []

    def keep_input(layer: nn.Module, inputs: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        layers.append((layer, inputs[0].detach()))

    generator = build_generator(settings.network, shape, 10)
    discriminator = build_discriminator(settings.network, shape, 10)
    hooks = [
        layer.register_forward_hook(keep_input)
        for layer in (*generator.modules(), *discriminator.modules())
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    ]
    with torch.no_grad():
        discriminator(generator(latents, labels), labels)
    for hook in hooks:
        hook.remove()

    found: dict[str, dict[str, dict[str, float]]] = {}
    for precision in (torch.bfloat16, torch.float32):
        name = "bf16" if precision is torch.bfloat16 else "fp32"
        left, right = torch.randn(2, 1024, 1024).to(precision)
        seconds = median_seconds(lambda a=left, b=right: a @ b, rounds)
        found.setdefault(PRODUCT, {}).setdefault("forward", {})[name] = 2 * 1024**3 / seconds / 1e9
        for layer, features in layers:
            x = features.to(precision).contiguous(memory_format=torch.channels_last)
            x.requires_grad_()
            layer.to(precision).to(memory_format=torch.channels_last)
            out = layer(x)
            upstream = torch.randn_like(out)
            # A weight meets every input pixel of a transposed convolution, else every output pixel.
            pixels = x if isinstance(layer, nn.ConvTranspose2d) else out
            operations = 2 * layer.weight.numel() * pixels[:, 0].numel()
            forward = median_seconds(lambda f=layer, x=x: f(x), rounds)
            inputs = (x, layer.weight)
            backward = median_seconds(
                lambda y=out, g=upstream, i=inputs: torch.autograd.grad(y, i, g, retain_graph=True),
                rounds,
            )
            kind = "transposed" if isinstance(layer, nn.ConvTranspose2d) else "convolution"
            size = "x".join(map(str, layer.kernel_size))
            title = (
                f"{kind} {size}, {layer.in_channels} to {layer.out_channels} channels, "
                f"{x.shape[2]} to {out.shape[2]} pixels"
            )
            rows = found.setdefault(title, {})
            rows.setdefault("forward", {})[name] = operations / forward / 1e9
            rows.setdefault("backward", {})[name] = 2 * operations / backward / 1e9
    return found


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
