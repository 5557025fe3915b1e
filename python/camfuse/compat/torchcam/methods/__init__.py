"""The extractors."""

from __future__ import annotations

from camfuse.compat.torchcam.methods.activation import CAM, ISCAM, SSCAM, ScoreCAM
from camfuse.compat.torchcam.methods.core import OutputTarget
from camfuse.compat.torchcam.methods.gradient import (
    FinerCAM,
    GradCAM,
    GradCAMpp,
    LayerCAM,
    LeGrad,
    RefineCAM,
    SmoothGradCAMpp,
    XGradCAM,
)

__all__ = [
    "CAM",
    "ISCAM",
    "SSCAM",
    "FinerCAM",
    "GradCAM",
    "GradCAMpp",
    "LayerCAM",
    "LeGrad",
    "OutputTarget",
    "RefineCAM",
    "ScoreCAM",
    "SmoothGradCAMpp",
    "XGradCAM",
]
