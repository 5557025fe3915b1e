"""Metrics of maps against masks or boxes that accumulate over a data set, on any number of GPUs.

Each is the mean over all images of the function it names, see there for maps and regions. Keyword
arguments of :class:`torchmetrics.Metric`, such as ``process_group``, go to it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from camfuse.checks import expect_whole
from camfuse.metrics.accumulate import Mean
from camfuse.metrics.histograms import thresholds
from camfuse.metrics.inside import (
    Weighting,
    effective_heat_ratio,
    energy_pointing_game,
    inside_outside,
    pointing_game,
)
from camfuse.metrics.overlaps import overlap
from camfuse.metrics.regions import Regions


class EnergyPointingGame(Mean):
    """Mean of :func:`camfuse.metrics.energy_pointing_game`, in [0, 1]."""

    def update(self, maps: Tensor, regions: Regions, ignore: Tensor | None = None) -> None:
        """Takes maps ``[B, H, W]`` and their regions."""
        self.add(energy_pointing_game(maps, regions, ignore=ignore))


class PointingGame(Mean):
    """Mean of :func:`camfuse.metrics.pointing_game`, in [0, 1].

    Args:
        tolerance: Pixels by which a maximum may miss; Zhang et al. use 15.
    """

    def __init__(self, tolerance: int = 0, **kwargs: Any) -> None:
        super().__init__(settings=[tolerance], **kwargs)
        expect_whole("tolerance", tolerance, of="pixels", at_least=0)
        self.tolerance = tolerance

    def update(self, maps: Tensor, regions: Regions) -> None:
        """Takes maps ``[B, H, W]`` and their regions."""
        self.add(pointing_game(maps, regions, tolerance=self.tolerance))


class InsideOutside(Mean):
    """Mean of :func:`camfuse.metrics.inside_outside`, in [-1, 1]."""

    def update(self, maps: Tensor, regions: Regions, ignore: Tensor | None = None) -> None:
        """Takes maps ``[B, H, W]`` and their regions."""
        self.add(inside_outside(maps, regions, ignore=ignore))


class EffectiveHeatRatio(Mean):
    """Mean of :func:`camfuse.metrics.effective_heat_ratio`, in [0, 1].

    Args:
        weighting: ``"count"`` or ``"heat"``.
    """

    def __init__(self, weighting: Weighting = "count", **kwargs: Any) -> None:
        super().__init__(settings=[weighting], **kwargs)
        if weighting not in ("heat", "count"):
            raise ValueError(f"weighting: expected 'heat' or 'count', got {weighting!r}")
        self.weighting = weighting

    def update(self, maps: Tensor, regions: Regions) -> None:
        """Takes maps ``[B, H, W]`` and their regions."""
        self.add(effective_heat_ratio(maps, regions, weighting=self.weighting))


class MaskIoU(Mean):
    """Mean intersection over union with maps at one threshold, in [0, 1].

    Args:
        threshold: The part of a map's range that a pixel must reach.
    """

    _kind = "iou"

    def __init__(self, threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(settings=[threshold], **kwargs)
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold: expected a number in [0, 1], got {threshold}")
        self.threshold = threshold

    def update(self, maps: Tensor, regions: Regions, ignore: Tensor | None = None) -> None:
        """Takes maps ``[B, H, W]`` and their regions."""
        found = overlap(maps, regions, self.threshold, ignore=ignore)
        self.add(getattr(found, self._kind)[:, 0])


class MaskDice(MaskIoU):
    """Mean of Dice's coefficient with maps at one threshold, in [0, 1].

    Args:
        threshold: The part of a map's range that a pixel must reach.
    """

    _kind = "dice"


class BestMaskIoU(Mean):
    """Mean intersection over union at the best threshold, in [0, 1].

    Args:
        step: Thresholds are 0, step, 2 step, ... below 1.
        per_image: Whether each image has a best threshold of its own, which needs its mask to be
            known; else it is one for all images, the one that is best on average.
    """

    _kind = "iou"

    def __init__(self, step: float = 0.01, *, per_image: bool = False, **kwargs: Any) -> None:
        super().__init__(settings=[step, per_image], **kwargs)
        self.step, self.per_image = step, per_image
        levels = thresholds(step)
        if not per_image:
            self.add_state("total", torch.zeros_like(levels), dist_reduce_fx="sum")

    def update(self, maps: Tensor, regions: Regions, ignore: Tensor | None = None) -> None:
        """Takes maps ``[B, H, W]`` and their regions."""
        found = overlap(maps, regions, thresholds(self.step), ignore=ignore)
        values: Tensor = getattr(found, self._kind)
        self.add(values.amax(1) if self.per_image else values)

    def compute(self) -> Tensor:
        """The best mean, or the mean of the best, f64."""
        return super().compute().amax()


class BestMaskDice(BestMaskIoU):
    """Mean of Dice's coefficient at the best threshold, in [0, 1].

    Args:
        step: Thresholds are 0, step, 2 step, ... below 1.
        per_image: As for :class:`BestMaskIoU`.
    """

    _kind = "dice"
