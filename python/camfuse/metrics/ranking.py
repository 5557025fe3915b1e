"""Which pixels are removed: those a map ranks first, and those it ranks last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from camfuse.devices import upload

Ranking = Literal["rank", "percentile"]


def ranks(maps: Tensor, *, seed: int = 0) -> Tensor:
    """Which place each pixel has from the largest value, from 0: ``[N, H, W]``, int64.

    Pixels of equal value come in the order of one random permutation, the same for all maps.

    Args:
        maps: ``[N, H, W]``, floating.
        seed: Of the permutation.
    """
    return _ranked(maps, seed)[1].view(maps.shape)


def removal_masks(
    maps: Tensor, percentages: Sequence[float], *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Masks of exactly ``round(p / 100 * H * W)`` pixels, the most and the least relevant first.

    Pixels are ranked by the signed map, those of equal value as :func:`ranks` does, also where the
    least relevant go first: both masks of a constant map are equal.

    Args:
        maps: ``[N, H, W]``, floating, at the images' size.
        percentages: P of them, in (0, 100).
        seed: Of the order among equals.

    Returns:
        Two masks ``[N, P, H, W]``, bool, true where a pixel is removed: most relevant first (MoRF)
        and least relevant first (LeRF).
    """
    descending, place = _ranked(maps, seed)
    pixels = place.shape[1]
    amounts = torch.tensor([round(p / 100 * pixels) for p in percentages])
    limits = upload(amounts, maps.device)[:, None]
    # The limit of the least relevant lies in a run of equal values, places [start, end): what is
    # behind the run is removed whole, and of the run as many as are left, in its own order.
    ascending = -descending
    last = ascending[:, upload((pixels - amounts).clamp(max=pixels - 1), maps.device)].contiguous()
    start = torch.searchsorted(ascending, last)[:, :, None]
    end = torch.searchsorted(ascending, last, right=True)[:, :, None]
    place = place[:, None]
    most = place < limits
    least = (place >= end) | ((place >= start) & (place < start + limits - (pixels - end)))
    shape = (len(maps), len(amounts), *maps.shape[1:])
    return most.view(shape), least.view(shape)


def percentile_masks(maps: Tensor, percentiles: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Masks as pytorch-grad-cam makes them: all that reaches a percentile of the map is removed.

    So percentile 80 removes the 20 % most relevant pixels, but all of them where more than 80 %
    of the map are its lowest value; and for the least relevant the same of ``1 - map``.

    Args:
        maps: ``[N, H, W]`` in [0, 1], as they are displayed.
        percentiles: P of them, in (0, 100).

    Returns:
        Two masks ``[N, P, H, W]`` like those of :func:`removal_masks`.

    Raises:
        ValueError: If maps are not in [0, 1].
    """
    low, high = (float(one) for one in maps.aminmax())
    if not 0 <= low <= high <= 1:
        raise ValueError(
            "maps: ranking='percentile' takes maps in [0, 1] as they are displayed, got values "
            f"from {low:.3g} to {high:.3g}"
        )

    def removed(relevance: Tensor) -> Tensor:
        thresholds = np.percentile(relevance.flatten(1).cpu().numpy(), percentiles, axis=1)
        limits = upload(torch.from_numpy(thresholds.T.copy()), maps.device)
        return ~(relevance[:, None] < limits.to(maps.dtype)[:, :, None, None])

    return removed(maps), removed(1 - maps)


def _ranked(maps: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Values in descending order, and the place of each pixel there, ``[N, H * W]``."""
    flat = maps.flatten(1)
    pixels = flat.shape[1]
    shuffled = torch.randperm(pixels, generator=torch.Generator().manual_seed(seed))
    shuffled = upload(shuffled, maps.device)
    values, order = flat[:, shuffled].sort(dim=1, descending=True, stable=True)
    order = shuffled[order]
    place = torch.arange(pixels, device=maps.device).expand_as(order)
    return values, torch.empty_like(order).scatter_(1, order, place)
