"""How well a thresholded map and a mask cover each other, at one threshold or at many."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from camfuse.metrics.histograms import histograms, reached
from camfuse.metrics.maps import checked_maps, normalized
from camfuse.metrics.regions import Regions, considered, region_masks


class Overlap(NamedTuple):
    """Overlaps ``[B, T]`` in [0, 1], f64, at T thresholds."""

    iou: Tensor
    dice: Tensor


def overlap(
    maps: Tensor,
    regions: Regions,
    thresholds: float | Tensor = 0.5,
    *,
    ignore: Tensor | None = None,
) -> Overlap:
    """Intersection over union, and Dice's coefficient, of regions and thresholded maps.

    Each map is normalized to [0, 1] by its own range; pixels at or above a threshold are those that
    it marks.

    Args:
        maps: ``[B, H, W]``; for best thresholds of each map: ``overlap(...).iou.amax(1)``.
        regions: Masks ``[B, H, W]`` or boxes.
        thresholds: One, or T of them in any order, in [0, 1].
        ignore: ``[B, H, W]``, bool: pixels that are left out of everything.

    Returns:
        Both ``[B, T]``, from one pass over the maps. At a threshold of 0 everything is marked;
        constant maps mark nothing at any other.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If one does not fit.
    """
    maps = checked_maps(maps)
    levels = torch.as_tensor(thresholds, dtype=torch.float64, device="cpu").reshape(-1)
    if not len(levels) or not bool(((levels >= 0) & (levels <= 1)).all()):
        raise ValueError(f"thresholds: expected numbers in [0, 1], got {thresholds}")
    levels = levels.to(maps.dtype).double()  # 0.7 in f32 reaches a threshold of 0.7
    inside = region_masks(regions, maps)
    order = levels.argsort()
    edges = torch.cat([torch.zeros(1, dtype=torch.float64), levels[order]])
    counts = histograms(normalized(maps), inside, considered(ignore, inside), edges)
    marked = reached(counts)[:, :, 1:][:, :, order.argsort().to(counts.device)].double()
    outside, hit = marked.unbind(1)
    size = counts[:, 1].sum(1, keepdim=True).double()
    return Overlap(hit / (size + outside), 2 * hit / (size + hit + outside))
