"""Heatmaps over photographs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

__all__ = ["overlay_mask"]


def overlay_mask(
    img: Image.Image, mask: Image.Image, colormap: Colormap | str = "jet", alpha: float = 0.7
) -> Image.Image:
    """A photograph under the colors of a map.

    Args:
        img: The photograph, of one band or three.
        mask: The map, mode ``F`` in [0, 1]; it is enlarged, and squared.
        colormap: Of matplotlib, or its name there.
        alpha: How much of the photograph is seen, at least 0 and below 1.

    Returns:
        A picture of the photograph's size, mode ``RGB``.

    Raises:
        RuntimeError: If matplotlib is not installed.
        TypeError: If one of the pictures is none.
        ValueError: If an argument does not fit.
    """
    if not isinstance(img, Image.Image) or not isinstance(mask, Image.Image):
        raise TypeError("img, mask: expected two PIL images")
    if not isinstance(alpha, float) or not 0 <= alpha < 1:
        raise ValueError(f"alpha: expected a float of at least 0 and below 1, got {alpha!r}")
    if len(img.getbands()) not in (1, 3):
        raise ValueError(f"img: expected one band or three, got mode {img.mode}")
    resized = np.asarray(mask.resize(img.size, resample=Image.Resampling.BICUBIC))
    colors = _colormap(colormap)(resized**2, bytes=True)[:, :, :3]
    if img.mode in ("L", "RGB"):
        return Image.blend(Image.fromarray(colors), img.convert("RGB"), alpha)
    pixels = np.asarray(img)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return Image.fromarray((alpha * pixels + (1 - alpha) * colors).astype(np.uint8))


def _colormap(colormap: Colormap | str) -> Any:
    try:
        from matplotlib import colormaps
    except ImportError as error:
        raise RuntimeError(
            "colors need matplotlib, which is not installed: pip install 'camfuse[metrics]'"
        ) from error
    return colormaps.get_cmap(colormap)
