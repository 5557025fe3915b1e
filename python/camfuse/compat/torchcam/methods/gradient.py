"""Extractors that differentiate a score."""

from __future__ import annotations

from camfuse.compat.torchcam.methods._finer import FinerCAM
from camfuse.compat.torchcam.methods._gradcam import (
    GradCAM,
    GradCAMpp,
    LayerCAM,
    XGradCAM,
    _GradCAM,
)
from camfuse.compat.torchcam.methods._legrad import LeGrad
from camfuse.compat.torchcam.methods._refine import RefineCAM
from camfuse.compat.torchcam.methods._smooth import SmoothGradCAMpp

__all__ = [
    "FinerCAM",
    "GradCAM",
    "GradCAMpp",
    "LayerCAM",
    "LeGrad",
    "RefineCAM",
    "SmoothGradCAMpp",
    "XGradCAM",
    "_GradCAM",
]
