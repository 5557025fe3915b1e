"""The face of captum 0.9's Grad-CAM, on camfuse's capture and kernels.

``LayerGradCam`` and ``LayerAttribution`` are found where captum has them: in ``attr``,
``attr._core.layer.grad_cam`` and ``attr._utils.attribution``. None of captum's other attributions
is here; they work with this one where captum itself is installed.
"""

from camfuse.compat.captum import attr
from camfuse.compat.captum.attr import LayerAttribution, LayerGradCam

__all__ = ["LayerAttribution", "LayerGradCam", "attr"]
__version__ = "0.9.0"
