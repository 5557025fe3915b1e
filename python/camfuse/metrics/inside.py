"""How much of a map's heat lies on the object: one number per map, all on the maps' device.

Maps are ``[B, H, W]`` as displayed, at the size of the masks: ``stack.normalized(layer,
size=(H, W))``. Regions are bool masks or boxes, see :data:`camfuse.metrics.regions.Regions`. Maps
that are not finite and regions without any pixel are refused, with the number of the sample.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from camfuse.checks import expect_whole
from camfuse.metrics.maps import checked_maps, normalized
from camfuse.metrics.regions import Regions, considered, region_masks

Weighting = Literal["heat", "count"]

_LEAST_ENERGY = 1e-7
_FLOOR, _CAP, _LEVELS = 0.1, 0.99, 11


def energy_pointing_game(maps: Tensor, regions: Regions, *, ignore: Tensor | None = None) -> Tensor:
    """The part of the positive heat that lies inside the region.

    Wang et al. 2020, "Score-CAM", section 4.3.

    Args:
        maps: ``[B, H, W]``; only positive values count.
        regions: Masks ``[B, H, W]`` or boxes.
        ignore: ``[B, H, W]``, bool: pixels that count neither as inside nor as outside.

    Returns:
        ``[B]`` in [0, 1]; 0 where all heat adds up to less than 1e-7.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If one does not fit.
    """
    maps = checked_maps(maps)
    inside = region_masks(regions, maps)
    heat = (maps.clamp(min=0) * considered(ignore, inside)).flatten(1).double()
    total = heat.sum(1)
    share = (heat * inside.flatten(1)).sum(1) / total.clamp(min=_LEAST_ENERGY)
    return torch.where(total < _LEAST_ENERGY, 0, share).clamp(max=1).to(maps.dtype)


def pointing_game(maps: Tensor, regions: Regions, *, tolerance: int = 0) -> Tensor:
    """Whether the maximum lies on the object.

    Zhang et al. 2018, "Top-down Neural Attention by Excitation Backprop", IJCV, with a
    tolerance of 15 pixels.

    Args:
        maps: ``[B, H, W]``.
        regions: Masks ``[B, H, W]`` or boxes.
        tolerance: Pixels by which the maximum may miss the region, in any direction.

    Returns:
        ``[B]``: 1 or 0. Where several pixels share the maximum, the part of them that hits: on a
        constant map that is what a pixel drawn at random would.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If one does not fit.
    """
    expect_whole("tolerance", tolerance, of="pixels", at_least=0)
    maps = checked_maps(maps)
    goal = _within(region_masks(regions, maps), tolerance).flatten(1)
    flat = maps.flatten(1)
    highest = flat == flat.amax(1, keepdim=True)
    return (highest & goal).sum(1).to(maps.dtype) / highest.sum(1)


def inside_outside(maps: Tensor, regions: Regions, *, ignore: Tensor | None = None) -> Tensor:
    """Mean heat inside the region less mean heat outside it, of maps normalized to [0, 1].

    Args:
        maps: ``[B, H, W]``; each is normalized by its own range.
        regions: Masks ``[B, H, W]`` or boxes.
        ignore: ``[B, H, W]``, bool: pixels that count neither as inside nor as outside.

    Returns:
        ``[B]`` in [-1, 1]; 0 for a constant map.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If one does not fit, or a sample has nothing outside.
    """
    maps = checked_maps(maps)
    inside = region_masks(regions, maps)
    outside = considered(ignore, inside) & ~inside
    full = (~outside.flatten(1).any(1)).nonzero()
    if len(full):
        raise ValueError(f"regions: expected a pixel outside, sample {int(full[0])} has none")
    heat = normalized(maps).double()
    within, without = (
        (heat * mask).flatten(1).sum(1) / mask.flatten(1).sum(1) for mask in (inside, outside)
    )
    return (within - without).to(maps.dtype)


def effective_heat_ratio(
    maps: Tensor, regions: Regions, *, weighting: Weighting = "count"
) -> Tensor:
    """Area under the curve of the hottest pixels' share inside the region, over quantiles.

    Of a map on [0, 1], heat below 0.1 is dropped. For q = 0, 0.1, ... 1 the threshold is the
    q-quantile of what is left, at most 0.99 of the maximum; the ratio is the count (or the heat) of
    pixels inside that reach it over the count of all that do. The area is the trapezoids'.
    Zhang et al. 2021, "Fine-Grained Neural Network Explanation by Identifying Input Features with
    Predictive Information", and the code that came with it.

    Args:
        maps: ``[B, H, W]``; each is normalized by its own range.
        regions: Masks ``[B, H, W]`` or boxes.
        weighting: What of the pixels inside is added up: their ``"count"`` or their ``"heat"``.

    Returns:
        ``[B]`` in [0, 1]; 0 for a constant map.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If one does not fit.
    """
    check_weighting(weighting)
    maps = checked_maps(maps)
    inside = region_masks(regions, maps).flatten(1)
    heat = normalized(maps).flatten(1).double()
    left = (heat >= _FLOOR).sum(1, keepdim=True)  # [B, 1]
    ascending = heat.sort(1).values
    levels = torch.linspace(0, 1, _LEVELS, dtype=heat.dtype, device=heat.device)
    # What is left is the end of the sorted row; quantiles interpolate between its entries.
    at = heat.shape[1] - left + levels * (left - 1).clamp(min=0)
    last = heat.shape[1] - 1
    below = ascending.gather(1, at.floor().long().clamp(max=last))
    above = ascending.gather(1, at.ceil().long().clamp(max=last))
    threshold = torch.lerp(below, above, at.frac()).clamp(max=_CAP)
    worth = heat * inside if weighting == "heat" else inside.double()
    ratios = []
    for one in threshold.unbind(1):  # eleven levels, or [B, 11, H * W] would be held at once
        hot = heat >= one[:, None]
        ratios.append((worth * hot).sum(1) / hot.sum(1).clamp(min=1))
    area = torch.trapezoid(torch.stack(ratios, 1), levels)
    return torch.where(left[:, 0] > 0, area, 0).to(maps.dtype)


def check_weighting(weighting: str) -> None:
    """Checks that heat can be added up so.

    Raises:
        ValueError: If it cannot.
    """
    if weighting not in get_args(Weighting):
        raise ValueError(f"weighting: expected 'heat' or 'count', got {weighting!r}")


def _within(masks: Tensor, radius: int) -> Tensor:
    """Pixels no further than ``radius`` from a pixel of the mask."""
    if not radius or not len(masks):
        return masks
    step = torch.arange(-radius, radius + 1, device=masks.device)
    disc = (step[:, None] ** 2 + step**2 <= radius**2).float()
    return F.conv2d(masks[:, None].float(), disc[None, None], padding=radius)[:, 0] > 0.5
