"""The first principal component of products of gradients and activations."""

from __future__ import annotations

from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.registry_hooks import image_by


class EigenGradCAM(BaseCAM):
    """Like Eigen-CAM, of gradients times activations.

    The first principal component of ``G A``. Its sign is that of their energy.
    """

    _method = "eigengradcam"
    get_cam_image = image_by("eigengradcam")
