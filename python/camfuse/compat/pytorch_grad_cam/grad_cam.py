"""Grad-CAM: channels weighted by their mean gradient."""

from __future__ import annotations

from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.registry_hooks import weights_by


class GradCAM(BaseCAM):
    """Grad-CAM (Selvaraju et al., ICCV 2017).

    ``w_k = mean_p G_k``.
    """

    _method = "gradcam"
    get_cam_weights = weights_by("gradcam")
