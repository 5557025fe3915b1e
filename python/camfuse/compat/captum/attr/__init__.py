"""Grad-CAM, and how its maps are enlarged."""

from camfuse.compat.captum.attr._core.layer.grad_cam import LayerGradCam
from camfuse.compat.captum.attr._utils.attribution import LayerAttribution

__all__ = ["LayerAttribution", "LayerGradCam"]
