"""Seg-Eigen-CAM: activations weighted by gradients' magnitudes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.arrays import Array
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.raw_maps import image_of
from camfuse.compat.pytorch_grad_cam.scores import Target


class SegEigenCAM(BaseCAM):
    """Seg-Eigen-CAM (Chung and Ying, Applied Sciences 15(13), 2025): the larger side positive."""

    _method = "segeigencam"

    def get_cam_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> Array:
        """The first principal component of ``|G| A`` ``[B, h, w]``."""
        return image_of("segeigencam", activations, grads, eigen_smooth)
