"""The learning part of GAN Foundry: usable alone, it knows no orchestrator and no tracking server.

Importing this package does no work; the names below are loaded when they are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .generator import ReleasedGenerator, load_generator

__all__ = ["ReleasedGenerator", "load_generator"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import generator

        return getattr(generator, name)
    raise AttributeError(f"module 'gan_core' has no attribute {name!r}")
