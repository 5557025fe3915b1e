"""The first principal component of products of gradients and activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.arrays import Array
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.raw_maps import image_of
from camfuse.compat.pytorch_grad_cam.scores import Target


class EigenGradCAM(BaseCAM):
    """Like Eigen-CAM, of gradients times activations; its sign is that of their energy."""

    _method = "eigengradcam"

    def get_cam_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> Array:
        """The first principal component of ``G A`` ``[B, h, w]``."""
        return image_of("eigengradcam", activations, grads, eigen_smooth)
