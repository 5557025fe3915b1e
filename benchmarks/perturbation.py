"""Score-CAM and Ablation-CAM of one layer against pytorch-grad-cam 1.5.7, on a photograph.

Both sides get the same model, layer, class and batch size, and their maps are compared first.
pytorch-grad-cam upsamples Score-CAM's masks with aligned corners and normalises them afterwards; to
time equal work on equal masks, it is given camfuse's masks instead (which costs it nothing: what it
normalises is in [0, 1] already). Its Ablation-CAM replaces channels of layers with negative values
by -1e7 instead of 0, so layers behind a ReLU are measured. ResNet-50 has random weights,
EfficientNet-Lite0 its own, with which many channels are silent behind its ReLU6.

Usage: python -m benchmarks.perturbation [--quick]   (needs `pip install camfuse[peers]`)
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from unittest import mock

import numpy as np
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from skimage import data
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.harness import Claim, compare, report
from benchmarks.models import build
from camfuse.ablation import ablationcam
from camfuse.masking import scorecam
from camfuse.perturbation import Perturbation, Site, Weighted

BATCH_SIZE = 16
# Model, layer, image size; in quick mode only the first of each method.
LAYERS = {
    "scorecam": [("resnet50", "layer4.2", 96), ("efficientnet-lite0", "6.2", 224)],
    "ablationcam": [("resnet50", "layer4.2", 96), ("resnet50", "layer2.3", 96)],
}
OURS: dict[str, Callable[[Perturbation, Site], Weighted]] = {
    "scorecam": scorecam,
    "ablationcam": ablationcam,
}


class HalfPixelMasks(nn.Module):
    """Upsamples normalised channels as camfuse does."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, A: Tensor) -> Tensor:
        low, high = A.amin((2, 3), keepdim=True), A.amax((2, 3), keepdim=True)
        masks = (A - low) / (high - low).clamp(min=1e-12)
        return F.interpolate(masks, self.size, mode="bilinear", align_corners=False)


def photograph(size: int) -> Tensor:
    """A cat, normalised as for ImageNet."""
    picture = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None].float() / 255
    picture = F.interpolate(picture, (size, size), mode="bilinear", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (picture - mean.view(3, 1, 1)) / std.view(3, 1, 1)
