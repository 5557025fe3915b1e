"""Grad-CAM: channels weighted by their mean gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.arrays import Array
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.raw_maps import rule_weights
from camfuse.compat.pytorch_grad_cam.scores import Target


class GradCAM(BaseCAM):
    """Grad-CAM (Selvaraju et al., ICCV 2017)."""

    _method = "gradcam"

    def get_cam_weights(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
    ) -> Array:
        """The mean gradient of each channel ``[B, C]``."""
        return rule_weights("gradcam", activations, grads)
