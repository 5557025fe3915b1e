"""The positive products of gradients and activations."""

from __future__ import annotations

from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.registry_hooks import image_by


class GradCAMElementWise(BaseCAM):
    """Products of gradients and activations, each rectified.

    ``sum_k max(G_k A_k, 0)``.
    """

    _method = "elementwise"
    get_cam_image = image_by("elementwise")
