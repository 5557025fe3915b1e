"""A baseline that knows nothing: channels weighted at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from camfuse.compat.native_maps import weighted_map
from camfuse.compat.pytorch_grad_cam.arrays import Array
from camfuse.compat.pytorch_grad_cam.gradient_free import GradientFreeCAM
from camfuse.compat.pytorch_grad_cam.scores import Target


class RandomCAM(GradientFreeCAM):
    """Weights from U(-1, 1), by NumPy's global generator."""

    _method = "randomcam"

    def get_cam_weights(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
    ) -> Array:
        """Random numbers ``[B, C]``, f64."""
        return np.random.uniform(-1, 1, size=tuple(activations.shape[:2]))

    def _native_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        A: Tensor,
        G: Tensor | None,
        eigen_smooth: bool,
    ) -> Tensor:
        weights = self.get_cam_weights(input_tensor, target_layer, targets, A, G)
        return weighted_map(A, torch.from_numpy(weights), eigen_smooth=eigen_smooth)
