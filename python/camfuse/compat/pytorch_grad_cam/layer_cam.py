"""LayerCAM: activations weighted by their own positive gradients."""

from __future__ import annotations

from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.registry_hooks import image_by


class LayerCAM(BaseCAM):
    """LayerCAM (Jiang et al., IEEE TIP 2021, eq. 4 and 5).

    ``sum_k max(G_k, 0) A_k``.
    """

    _method = "layercam"
    get_cam_image = image_by("layercam")
