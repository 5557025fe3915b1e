"""How the score changes when the image is multiplied by its map."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from camfuse.compat.pytorch_grad_cam.arrays import FloatArray
from camfuse.compat.pytorch_grad_cam.metrics.perturbation_confidence import (
    PerturbationConfidenceMetric,
)


def multiply_tensor_with_cam(input_tensor: Tensor, cam: Tensor) -> Tensor:
    """A normalized image times its map."""
    return input_tensor * cam


class CamMultImageConfidenceChange(PerturbationConfidenceMetric):
    """What the score of the image times its map is above that of the image."""

    def __init__(self) -> None:
        super().__init__(multiply_tensor_with_cam)


class DropInConfidence(CamMultImageConfidenceChange):
    """By how much the score becomes smaller, else 0."""

    def _finished(self, change: FloatArray) -> FloatArray:
        return np.maximum(-change, 0)


class IncreaseInConfidence(CamMultImageConfidenceChange):
    """1 where the score becomes larger, else 0."""

    def _finished(self, change: FloatArray) -> FloatArray:
        return (change > 0).astype(np.float32)
