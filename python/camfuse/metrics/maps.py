"""Maps as metrics take them: checked before any work, and laid over their images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from camfuse.checks import expect
from camfuse.stack import resize

_SLACK = 1e-5  # what rounding may add to a map in [0, 1]; half precision is checked as it is


def checked_maps(maps: Tensor, *, unit: bool = False, finite: bool = True) -> Tensor:
    """Maps ``[B, h, w]`` apart from any graph, f32 (f64 if they are).

    Args:
        maps: One map per image.
        unit: Whether they must lie in [0, 1].
        finite: Whether they must be finite.

    Raises:
        TypeError: If it is no tensor.
        ValueError: If it is not of that shape, not floating, or its numbers are not as asked for;
            the message names the sample.
    """
    expect("maps", maps, Tensor)
    if maps.ndim != 3 or not maps.shape[1:].numel() or not maps.is_floating_point():
        raise ValueError(
            f"maps: expected floating maps (B, h, w), got {maps.dtype} {tuple(maps.shape)}"
        )
    maps = maps.detach()
    maps = maps if maps.dtype == torch.float64 else maps.float()
    low, high = maps.flatten(1).aminmax(dim=1)
    sound = low.isfinite() & high.isfinite()
    if finite and not bool(sound.all()):
        raise ValueError(f"maps: sample {int(sound.int().argmin())} is not finite")
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
    """Maps ``[B, H, W]`` as they are displayed: at the images' size, on their device.

    Args:
        maps: ``[B, h, w]`` of any size.
        images: ``[B, C, H, W]``.
        unit: As for :func:`checked_maps`.

    Raises:
        TypeError: As :func:`checked_maps` does.
        ValueError: As :func:`checked_maps` does, and if there is not one map per image.
    """
    maps = checked_maps(maps, unit=unit)
    if len(maps) != len(images):
        raise ValueError(
            f"maps: expected ({len(images)}, h, w), a map per image, got {tuple(maps.shape)}"
        )
    return upsampled(maps.to(images.device), images.shape[-2:])


def upsampled(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps ``[N, h, w]`` at another size, bilinearly; within the range that each had before.

    The rounding of interpolation would lead out of it, and give a constant map an order of its own.
    """
    if maps.shape[1:] == torch.Size(size):
        return maps
    low, high = (one[:, None, None] for one in maps.flatten(1).aminmax(dim=1))
    return resize(maps, size, leading=1).clamp(low, high)


def normalized(maps: Tensor) -> Tensor:
    """Each map ``[B, H, W]`` on [0, 1] by its own range; constant maps become 0."""
    low, high = (one[:, None, None] for one in maps.flatten(1).aminmax(dim=1))
    span = high - low
    return torch.where(span > 0, (maps - low) / span, torch.zeros_like(maps))
