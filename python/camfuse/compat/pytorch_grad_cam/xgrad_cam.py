"""XGrad-CAM: channels weighted by gradients in proportion to activations."""

from __future__ import annotations

from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.registry_hooks import weights_by


class XGradCAM(BaseCAM):
    """XGrad-CAM (Fu et al., BMVC 2020, eq. 8).

    ``w_k = sum_p G_k A_k / (sum_p A_k + 1e-7)``.
    """

    _method = "xgradcam"
    get_cam_weights = weights_by("xgradcam")
