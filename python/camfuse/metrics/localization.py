"""Metrics of maps against masks or boxes that accumulate over a data set, on any number of GPUs.

Each is the mean over all images of the function it names, see there for maps and regions. Keyword
arguments of :class:`torchmetrics.Metric`, such as ``process_group``, go to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from camfuse.checks import expect_whole
from camfuse.metrics.accumulate import Mean
from camfuse.metrics.histograms import thresholds
from camfuse.metrics.inside import (
    Weighting,
    check_weighting,
    effective_heat_ratio,
    energy_pointing_game,
    inside_outside,
    pointing_game,
)
from camfuse.metrics.overlap import overlap
from camfuse.metrics.regions import Regions


class _OfRegions(Mean):
    def update(self, maps: Tensor, regions: Regions) -> None:
        """Takes maps ``[B, H, W]`` and their regions."""
        self.add(self.of(maps, regions))


class _OfRegionsAndIgnored(Mean):
    def update(self, maps: Tensor, regions: Regions, ignore: Tensor | None = None) -> None:
        """Takes maps ``[B, H, W]``, their regions and, maybe, what is to be ignored."""
        self.add(self.of(maps, regions, ignore=ignore))


class EnergyPointingGame(_OfRegionsAndIgnored):
    """Mean of :func:`camfuse.metrics.energy_pointing_game`, in [0, 1]."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(partial(energy_pointing_game), **kwargs)


class PointingGame(_OfRegions):
    """Mean of :func:`camfuse.metrics.pointing_game`, in [0, 1].

    Args:
        tolerance: Pixels by which a maximum may miss; Zhang et al. use 15.
    """

    def __init__(self, tolerance: int = 0, **kwargs: Any) -> None:
        expect_whole("tolerance", tolerance, of="pixels", at_least=0)
        super().__init__(partial(pointing_game, tolerance=tolerance), **kwargs)


class InsideOutside(_OfRegionsAndIgnored):
    """Mean of :func:`camfuse.metrics.inside_outside`, in [-1, 1]."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(partial(inside_outside), **kwargs)


class EffectiveHeatRatio(_OfRegions):
    """Mean of :func:`camfuse.metrics.effective_heat_ratio`, in [0, 1].

    Args:
        weighting: ``"count"`` or ``"heat"``.
    """

    def __init__(self, weighting: Weighting = "count", **kwargs: Any) -> None:
        check_weighting(weighting)
        super().__init__(partial(effective_heat_ratio, weighting=weighting), **kwargs)


class _OfOverlap(_OfRegionsAndIgnored):
    """Both IoU and Dice, one of which is computed: in a collection they share their work."""

    _kind = 0

    def __init__(self, levels: Sequence[float], per_image: bool, **kwargs: Any) -> None:
        of = partial(_iou_and_dice, levels=levels, per_image=per_image)
        super().__init__(of, shape=(2, 1 if per_image else len(levels)), **kwargs)

    def compute(self) -> Tensor:
        """The mean over all images so far, at the threshold that is best, f64."""
        return super().compute()[self._kind].amax()


class MaskIoU(_OfOverlap):
    """Mean intersection over union with maps at one threshold, in [0, 1].

    Args:
        threshold: The part of a map's range that a pixel must reach.
    """

    def __init__(self, threshold: float = 0.5, **kwargs: Any) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold: expected a number in [0, 1], got {threshold}")
        super().__init__([threshold], per_image=False, **kwargs)


class MaskDice(MaskIoU):
    """Mean of Dice's coefficient with maps at one threshold, in [0, 1].

    Args:
        threshold: The part of a map's range that a pixel must reach.
    """

    _kind = 1


class BestMaskIoU(_OfOverlap):
    """Mean intersection over union at the best threshold, in [0, 1].

    Args:
        step: Thresholds are 0, step, 2 step, ... below 1.
        per_image: Whether each image has a best threshold of its own, which needs its mask to be
            known; else it is one for all images, the one that is best on average.
    """

    def __init__(self, step: float = 0.01, *, per_image: bool = False, **kwargs: Any) -> None:
        super().__init__(thresholds(step).tolist(), per_image, **kwargs)


class BestMaskDice(BestMaskIoU):
    """Mean of Dice's coefficient at the best threshold, in [0, 1].

    Args:
        step: Thresholds are 0, step, 2 step, ... below 1.
        per_image: As for :class:`BestMaskIoU`.
    """

    _kind = 1


def _iou_and_dice(
    maps: Tensor,
    regions: Regions,
    *,
    ignore: Tensor | None,
    levels: Sequence[float],
    per_image: bool,
) -> Tensor:
    """``[B, 2, T]``, or the best of each image ``[B, 2, 1]``."""
    at_levels = torch.tensor(levels, dtype=torch.float64)
    found = torch.stack(overlap(maps, regions, at_levels, ignore=ignore), 1)
    return found.amax(2, keepdim=True) if per_image else found
