"""ROAD: pixels removed by relevance, imputed from what is around them (arXiv 2202.00449)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from camfuse.compat.pytorch_grad_cam.arrays import Array, FloatArray
from camfuse.compat.pytorch_grad_cam.metrics.perturbation_confidence import (
    PERCENTILES,
    AveragerAcrossThresholds,
    Percentile,
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
    Targets,
)
from camfuse.ops import impute

neighbors_weights = [
    ((dy, dx), 1 / 6 if dy == 0 or dx == 0 else 1 / 12)
    for dy in (-1, 0, 1)
    for dx in (-1, 0, 1)
    if (dy, dx) != (0, 0)
]
"""What a neighbor at ``(down, right)`` weighs."""

_TOLERANCE = 1e-5  # of the range of the pixels that were kept


class NoisyLinearImputer:
    """Each removed pixel becomes the weighted mean of its neighbors, plus noise.

    Args:
        noise: Standard deviation of the noise, which comes from torch's global generator.
        weighting: :data:`neighbors_weights`, the only weights there are.

    Raises:
        ValueError: If other weights are asked for.
    """

    def __init__(
        self,
        noise: float = 0.01,
        weighting: Sequence[tuple[tuple[int, int], float]] = neighbors_weights,
    ) -> None:
        if dict(weighting) != dict(neighbors_weights):
            raise ValueError(
                f"weighting: expected neighbors_weights, those of ROAD, got {weighting}"
            )
        self.noise = noise
        self.weighting = weighting

    def __call__(self, img: Tensor, mask: Tensor) -> Tensor:
        """Removed pixels filled in.

        Args:
            img: ``[C, H, W]``, floating.
            mask: ``[H, W]``, 0 where a pixel is removed.

        Returns:
            ``[C, H, W]``, like the image. One that is removed whole becomes noise around 0.
        """
        removed = mask == 0
        with torch.no_grad():
            filled = impute(img, removed[None], tolerance=_TOLERANCE)[0]
            # On the CPU and in f32: a seed gives the same noise on all devices and for all dtypes.
            shape = len(img), int(removed.sum())
            noise = torch.randn(shape, dtype=torch.float32, device="cpu")
            filled[:, removed] += (self.noise * noise).to(filled)
        return filled


class ROADMostRelevantFirst(PerturbationConfidenceMetric):
    """The change of the score without the most relevant pixels: lower is better.

    Args:
        percentile: Of the map; what reaches it is removed. ``"auto"``: what is above Otsu's
            threshold.
    """

    def __init__(self, percentile: Percentile = 80) -> None:
        super().__init__(RemoveMostRelevantFirst(percentile, NoisyLinearImputer()))


class ROADLeastRelevantFirst(PerturbationConfidenceMetric):
    """The change of the score without the least relevant pixels: higher is better.

    Args:
        percentile: Of ``1 - map``; what reaches it is removed. ``"auto"``: what is above Otsu's
            threshold.
    """

    def __init__(self, percentile: Percentile = 20) -> None:
        super().__init__(RemoveLeastRelevantFirst(percentile, NoisyLinearImputer()))


class ROADMostRelevantFirstAverage(AveragerAcrossThresholds):
    """The mean of :class:`ROADMostRelevantFirst` over percentiles."""

    def __init__(self, percentiles: Sequence[float] = PERCENTILES) -> None:
        super().__init__(ROADMostRelevantFirst, percentiles)


class ROADLeastRelevantFirstAverage(AveragerAcrossThresholds):
    """The mean of :class:`ROADLeastRelevantFirst` over percentiles."""

    def __init__(self, percentiles: Sequence[float] = PERCENTILES) -> None:
        super().__init__(ROADLeastRelevantFirst, percentiles)


class ROADCombined:
    """Half of how much the score is higher without the least than without the most relevant.

    Args:
        percentiles: Over which the mean is taken.
    """

    def __init__(self, percentiles: Sequence[float] = PERCENTILES) -> None:
        self.percentiles = list(percentiles)
        self.morf_averager = ROADMostRelevantFirstAverage(percentiles)
        self.lerf_averager = ROADLeastRelevantFirstAverage(percentiles)

    def __call__(
        self,
        input_tensor: Tensor,
        cams: Array | Tensor,
        targets: Targets,
        model: Callable[[Tensor], Any],
    ) -> FloatArray:
        """Scores ``[B]``, f32, higher is better; arguments are those of its parts."""
        least, most = (
            averager(input_tensor, cams, targets, model, return_diff=False)
            for averager in (self.lerf_averager, self.morf_averager)
        )
        return (least - most) / np.float32(2)
