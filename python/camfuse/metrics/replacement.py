"""What stands in an image where pixels were removed from it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Baseline = Literal["zero", "blur"] | Tensor
"""``"zero"`` (the mean color of a normalized input), ``"blur"`` (the image itself, blurred), or a
tensor that broadcasts to the images."""

_RADIUS, _SIGMA = 5, 5.0  # pixels, the blur of RISE's evaluation


def replacement(images: Tensor, baseline: Baseline) -> Tensor:
    """What removed pixels become ``[B, C, H, W]``, perhaps as a view.

    Raises:
        ValueError: If the baseline is no known one, or does not fit the images.
    """
    if isinstance(baseline, Tensor):
        baseline = baseline.detach().to(images)
        try:
            return baseline.expand_as(images)
        except RuntimeError:
            raise ValueError(
                f"baseline: expected a tensor that broadcasts to {tuple(images.shape)}, got "
                f"{tuple(baseline.shape)}"
            ) from None
    if baseline == "zero":
        return torch.zeros_like(images)
    if baseline == "blur":
        return _blurred(images)
    raise ValueError(f"baseline: expected 'zero', 'blur' or a tensor, got {baseline!r}")


def _blurred(images: Tensor) -> Tensor:
    """A Gaussian in a window of 11 x 11 pixels; those at the edge go on beyond it."""
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float32, device=images.device)
    bell = (-0.5 * (offsets / _SIGMA) ** 2).exp()
    bell = (bell / bell.sum()).to(images.dtype)
    planes = images.flatten(0, 1)[:, None]
    planes = F.pad(planes, [_RADIUS] * 4, mode="replicate")
    planes = F.conv2d(F.conv2d(planes, bell.view(1, 1, 1, -1)), bell.view(1, 1, -1, 1))
    return planes.view_as(images)
