"""ARCC: coherency, complexity and ROAD of a map in one number (arXiv 2605.14641)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from camfuse.compat.pytorch_grad_cam.arrays import Array, FloatArray, float32_of, tensor_of
from camfuse.compat.pytorch_grad_cam.metrics.perturbation_confidence import Targets
from camfuse.compat.pytorch_grad_cam.metrics.road import ROADCombined
from camfuse.metrics.correlation import correlation

CamMethod = Callable[..., Array]
"""Called with ``input_tensor`` and ``targets``, returns maps ``[B, H, W]``."""


def batch_pearson_coherency(A: Array | Tensor, B: Array | Tensor) -> FloatArray:
    """Pearson's correlation ``[B]`` of two batches of maps, f32; 0 where a map is constant."""
    return float32_of(correlation(*(tensor_of(one).cpu().flatten(1) for one in (A, B))))


class Complexity:
    """The mean magnitude of a map: 0 for an empty map, 1 for one that is all 1."""

    def __call__(self, grayscale_cams: Array | Tensor) -> FloatArray:
        """Of maps ``[B, H, W]`` in [0, 1]: ``[B]``, f32. Lower is better."""
        return float32_of(tensor_of(grayscale_cams).float().abs().flatten(1).mean(1))


class Coherency:
    """How alike the map of an image is to that of the image times its map."""

    def __call__(
        self,
        input_tensor: Tensor,
        grayscale_cams: Array | Tensor,
        targets: Targets | None,
        model: Any,
        base_method: CamMethod,
    ) -> FloatArray:
        """Correlation, taken to [0, 1].

        Args:
            input_tensor: Images ``[B, C, H, W]``.
            grayscale_cams: Their maps ``[B, H, W]`` in [0, 1].
            targets: Passed on to ``base_method``.
            model: Not used: ``base_method`` holds the model.
            base_method: What made the maps.

        Returns:
            ``[B]``, f32. Higher is better.
        """
        masked = input_tensor * tensor_of(grayscale_cams).to(input_tensor)[:, None]
        again = base_method(input_tensor=masked, targets=targets)
        return (batch_pearson_coherency(again, grayscale_cams) + 1) / np.float32(2)


class ARCC:
    """The harmonic mean of coherency, 1 - complexity and twice ROAD, taken to [0, 1].

    ROAD is within a half for targets that are probabilities, and it is made for those.

    Args:
        base_method: What made the maps.
        road_percentiles: Those of :class:`ROADCombined`.
    """

    def __init__(
        self, base_method: CamMethod, road_percentiles: Sequence[float] = (20, 40, 60, 80)
    ) -> None:
        self.complexity = Complexity()
        self.coherency = Coherency()
        self.road = ROADCombined(road_percentiles)
        self.base_method = base_method

    def __call__(
        self,
        input_tensor: Tensor,
        grayscale_cams: Array | Tensor,
        targets: Targets,
        model: Callable[[Tensor], Any],
    ) -> FloatArray:
        """Scores ``[B]`` in [0, 1], f32, higher is better; arguments are those of its parts."""
        simplicity = 1 - self.complexity(grayscale_cams)
        coherency = self.coherency(input_tensor, grayscale_cams, targets, model, self.base_method)
        road = (self.road(input_tensor, grayscale_cams, targets, model) * 2).clip(0, 1)
        parts = torch.from_numpy(np.stack([coherency, simplicity, road]))
        return float32_of(3 / (1 / (parts + 1e-8)).sum(0))
