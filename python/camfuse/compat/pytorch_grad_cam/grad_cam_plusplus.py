"""Grad-CAM++: channels weighted by their positive gradients, weighted in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.arrays import Array
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.raw_maps import rule_weights
from camfuse.compat.pytorch_grad_cam.scores import Target


class GradCAMPlusPlus(BaseCAM):
    """Grad-CAM++ (Chattopadhay et al., WACV 2018, eq. 19)."""

    _method = "gradcam++"

    def get_cam_weights(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
    ) -> Array:
        """``sum_p max(G, 0) G^2 / (2 G^2 + G^3 sum_p A + 1e-6)`` ``[B, C]``."""
        return rule_weights("gradcam++", activations, grads)
