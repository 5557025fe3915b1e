"""LayerCAM: activations weighted by their own positive gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.arrays import Array
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.raw_maps import image_of
from camfuse.compat.pytorch_grad_cam.scores import Target


class LayerCAM(BaseCAM):
    """LayerCAM (Jiang et al., IEEE TIP 2021, eq. 4 and 5)."""

    _method = "layercam"

    def get_cam_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> Array:
        """``sum_k max(G, 0) A`` ``[B, h, w]``."""
        return image_of("layercam", activations, grads, eigen_smooth)
