"""Maps as metrics take them: checked before any work, and laid over their images."""

from __future__ import annotations

import torch
from torch import Tensor

from camfuse.checks import expect
from camfuse.stack import resize

_SLACK = 1e-5  # what rounding may add to a map in [0, 1]; half precision is checked as it is


def checked_maps(maps: Tensor, *, unit: bool = False) -> Tensor:
    """Maps ``[B, h, w]`` apart from any graph, f32 (f64 if they are).

    Args:
        maps: One map per image.
        unit: Whether they must lie in [0, 1].

    Raises:
        TypeError: If it is no tensor.
        ValueError: If it is not of that shape, empty, not floating, not finite, or not in [0, 1]
            where that is asked for; the message names the sample.
    """
    expect("maps", maps, Tensor)
    if maps.ndim != 3 or not maps.numel() or not maps.is_floating_point():
        raise ValueError(
            f"maps: expected floating maps (B, h, w), got {maps.dtype} {tuple(maps.shape)}"
        )
    maps = maps.detach()
    maps = maps if maps.dtype == torch.float64 else maps.float()
    low, high = maps.flatten(1).aminmax(dim=1)
    finite = low.isfinite() & high.isfinite()
    if not bool(finite.all()):
        raise ValueError(f"maps: sample {int(finite.int().argmin())} is not finite")
    within = (low >= -_SLACK) & (high <= 1 + _SLACK)
    if unit and not bool(within.all()):
        sample = int(within.int().argmin())
        raise ValueError(
            f"maps: expected values in [0, 1], as those of camfuse.cam() or "
            f"CamStack.normalized(), got {float(low[sample]):.3g} to {float(high[sample]):.3g} in "
            f"sample {sample}"
        )
    return maps.clamp(0, 1) if unit else maps


def laid_over(maps: Tensor, images: Tensor, *, unit: bool = False) -> Tensor:
    """Maps ``[B, H, W]`` as they are displayed: upsampled bilinearly to the images' size.

    Args:
        maps: ``[B, h, w]`` of any size.
        images: ``[B, C, H, W]``.
        unit: As for :func:`checked_maps`.

    Raises:
        TypeError: As :func:`checked_maps` does.
        ValueError: As :func:`checked_maps` does, and if there is not one map per image, or they are
            on another device.
    """
    expect("maps", maps, Tensor)
    if maps.ndim != 3 or len(maps) != len(images):
        raise ValueError(
            f"maps: expected ({len(images)}, h, w), a map per image, got {tuple(maps.shape)}"
        )
    if maps.device != images.device:
        raise ValueError(
            f"maps: expected them where the images are, on {images.device}, got {maps.device}"
        )
    maps, size = checked_maps(maps, unit=unit), images.shape[-2:]
    if maps.shape[-2:] == size:
        return maps
    # Interpolation stays within a map's range but for its rounding, which would give a constant map
    # an order of its own.
    low, high = (one[:, None, None] for one in maps.flatten(1).aminmax(dim=1))
    return resize(maps, size, leading=1).clamp(low, high)
