"""XGrad-CAM: channels weighted by gradients in proportion to activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.arrays import Array
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.raw_maps import rule_weights
from camfuse.compat.pytorch_grad_cam.scores import Target


class XGradCAM(BaseCAM):
    """XGrad-CAM (Fu et al., BMVC 2020, eq. 8)."""

    _method = "xgradcam"

    def get_cam_weights(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
    ) -> Array:
        """``sum_p G A / (sum_p A + 1e-7)`` ``[B, C]``."""
        return rule_weights("xgradcam", activations, grads)
