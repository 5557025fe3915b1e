"""HiResCAM: products of gradients and activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.arrays import Array
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.raw_maps import image_of
from camfuse.compat.pytorch_grad_cam.scores import Target


class HiResCAM(BaseCAM):
    """HiResCAM (Draelos and Carin, 2020, arXiv 2011.08891)."""

    _method = "hirescam"

    def get_cam_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> Array:
        """``sum_k G A`` ``[B, h, w]``."""
        return image_of("hirescam", activations, grads, eigen_smooth)
