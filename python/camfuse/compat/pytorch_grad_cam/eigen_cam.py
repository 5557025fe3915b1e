"""Eigen-CAM: the first principal component of the activations."""

from __future__ import annotations

from camfuse.compat.pytorch_grad_cam.gradient_free import GradientFreeCAM
from camfuse.compat.pytorch_grad_cam.registry_hooks import image_by


class EigenCAM(GradientFreeCAM):
    """Eigen-CAM (Muhammad and Yeasin, IJCNN 2020).

    The first principal component of ``A``. Its sign is that of the activation energy.
    """

    _method = "eigencam"
    get_cam_image = image_by("eigencam")
