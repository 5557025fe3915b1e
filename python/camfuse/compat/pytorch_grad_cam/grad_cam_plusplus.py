"""Grad-CAM++: channels weighted by their positive gradients, weighted in turn."""

from __future__ import annotations

from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.registry_hooks import weights_by


class GradCAMPlusPlus(BaseCAM):
    """Grad-CAM++ (Chattopadhay et al., WACV 2018, eq. 19).

    ``w_k = sum_p max(G_k, 0) G_k^2 / (2 G_k^2 + G_k^3 sum_p A_k + 1e-6)``.
    """

    _method = "gradcam++"
    get_cam_weights = weights_by("gradcam++")
