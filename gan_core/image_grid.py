"""Grids of images as PNG, for people to look at."""

import io
from pathlib import Path

import numpy as np
import PIL.Image


def make_grid(images: np.ndarray, columns: int, gap_pixels: int = 1) -> np.ndarray:
    """Lay images out row by row.

    Args:
        images: uint8, shape (n, height, width, channels).
        columns: Images a row.
        gap_pixels: White space between images.

    Returns:
        uint8, shape (grid height, grid width, channels).
    """
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    step_y, step_x = height + gap_pixels, width + gap_pixels
    grid = np.full(
        (rows * step_y - gap_pixels, columns * step_x - gap_pixels, channels), 255, np.uint8
    )
    for index, image in enumerate(images):
        top, left = index // columns * step_y, index % columns * step_x
        grid[top : top + height, left : left + width] = image
    return grid


def grid_columns(count: int, classes: int) -> int:
    """A column for each class where they are few, else a near-square grid."""
    if 2 <= classes <= min(16, count):
        return classes
    return int(np.ceil(np.sqrt(count)))


def to_picture(pixels: np.ndarray, scale: int = 1) -> PIL.Image.Image:
    """Pixels of shape (height, width, channels) as a picture, each pixel `scale` pixels wide."""
    mode_pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    picture = PIL.Image.fromarray(np.ascontiguousarray(mode_pixels))
    size = (picture.width * scale, picture.height * scale)
    return picture.resize(size, PIL.Image.Resampling.NEAREST) if scale > 1 else picture


def display_scale(pixels: np.ndarray, target_pixels: int = 480) -> int:
    """The enlargement that brings a small picture near a width that people can see."""
    return max(1, target_pixels // max(pixels.shape[:2]))


def save_png(pixels: np.ndarray, path: Path, scale: int = 1) -> None:
    """Write pixels of shape (height, width, channels) as PNG."""
    to_picture(pixels, scale).save(path)


def png_bytes(pixels: np.ndarray, scale: int = 1) -> bytes:
    """The same PNG in memory."""
    buffer = io.BytesIO()
    to_picture(pixels, scale).save(buffer, "png", optimize=True)
    return buffer.getvalue()
