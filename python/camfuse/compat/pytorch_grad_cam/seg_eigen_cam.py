"""Seg-Eigen-CAM: activations weighted by gradients' magnitudes."""

from __future__ import annotations

from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.registry_hooks import image_by


class SegEigenCAM(BaseCAM):
    """Seg-Eigen-CAM (Chung and Ying, Applied Sciences 15(13), 2025).

    The first principal component of ``|G| A``. The larger side is positive.
    """

    _method = "segeigencam"
    get_cam_image = image_by("segeigencam")
