"""What takes the place of captum's own classes where captum is installed: ours, of its kind."""

from __future__ import annotations

from collections.abc import Callable

from captum.attr._utils import attribution
from torch import Tensor, nn

from camfuse.compat.captum.attr._core.layer import grad_cam

__all__ = ["LayerGradCam"]


class LayerGradCam(
    grad_cam.LayerGradCam,
    attribution.LayerAttribution,  # type: ignore[misc]  # captum is not typed
    attribution.GradientAttribution,  # type: ignore[misc]
):
    """camfuse's :class:`~camfuse.compat.captum.LayerGradCam`, an instance of captum's bases too."""

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        layer: nn.Module,
        device_ids: list[int] | None = None,
    ) -> None:
        grad_cam.LayerGradCam.__init__(self, forward_func, layer, device_ids)
        attribution.GradientAttribution.__init__(self, forward_func)
