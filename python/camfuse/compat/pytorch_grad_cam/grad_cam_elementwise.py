"""The positive products of gradients and activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.arrays import Array
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.raw_maps import image_of
from camfuse.compat.pytorch_grad_cam.scores import Target


class GradCAMElementWise(BaseCAM):
    """Products of gradients and activations, each rectified."""

    _method = "elementwise"

    def get_cam_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> Array:
        """``sum_k max(G A, 0)`` ``[B, h, w]``."""
        return image_of("elementwise", activations, grads, eigen_smooth)
