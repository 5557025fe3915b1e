"""Which pixels are removed: those a map ranks first, and those it ranks last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from camfuse.devices import upload

Ranking = Literal["rank", "percentile"]


def removal_masks(
    maps: Tensor, percentages: Sequence[float], *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Masks of exactly ``round(p / 100 * H * W)`` pixels, the most and the least relevant first.

    Pixels are ranked by the signed map. Those of equal value are removed in the order of one random
    permutation, the same for all maps and for both masks: least relevant first is most relevant
    first of the negated map, and both masks of a constant map are equal.

    Args:
        maps: ``[N, H, W]``, floating, at the images' size.
        percentages: P of them, in (0, 100).
        seed: Of the permutation.

    Returns:
        Two masks ``[N, P, H, W]``, bool, true where a pixel is removed: most relevant first (MoRF)
        and least relevant first (LeRF).
    """
    count, height, width = maps.shape
    pixels = height * width
    shuffled = torch.randperm(pixels, generator=torch.Generator().manual_seed(seed))
    shuffled = upload(shuffled, maps.device)
    values, order = maps.flatten(1)[:, shuffled].sort(dim=1, descending=True, stable=True)
    order = shuffled[order]
    # A run of equal values occupies places [start, end) from the top, and from the bottom as many
    # as are less, in the same order.
    place = torch.arange(pixels, device=maps.device).expand(count, -1)
    begins = torch.ones_like(values, dtype=torch.bool)
    begins[:, 1:] = values[:, 1:] != values[:, :-1]
    start = torch.where(begins, place, 0).cummax(1).values
    ends = begins.roll(-1, 1)
    end = torch.where(ends, place + 1, pixels).flip(1).cummin(1).values.flip(1)
    amounts = [round(p / 100 * pixels) for p in percentages]
    limits = upload(torch.tensor(amounts), maps.device)[:, None]

    def removed(rank: Tensor) -> Tensor:
        ranks = torch.empty_like(rank).scatter_(1, order, rank)
        return (ranks[:, None] < limits).view(count, -1, height, width)

    return removed(place), removed(pixels - end + place - start)


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
