"""HiResCAM: products of gradients and activations."""

from __future__ import annotations

from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.registry_hooks import image_by


class HiResCAM(BaseCAM):
    """HiResCAM (Draelos and Carin, 2020, arXiv 2011.08891).

    ``sum_k G_k A_k``.
    """

    _method = "hirescam"
    get_cam_image = image_by("hirescam")
