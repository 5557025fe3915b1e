"""Small models for the face of torchcam, and one call of either side."""

from __future__ import annotations

import torch
from torch import nn


class Net(nn.Module):
    """Three convolutions, the first two overwritten in place if asked to; the last is positive."""

    def __init__(self, inplace=False):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.last = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Softplus())
        self.relu, self.drop = nn.ReLU(inplace), nn.Dropout(0.5)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.relu(self.norm(self.first(x)))
        x = self.last(self.relu(self.second(x)))
        return self.fc(self.drop(x.mean((2, 3))))


def net(inplace=False):
    torch.manual_seed(0)
    return Net(inplace).eval()


def images(batch=2, side=16):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def call(kind, model, layers, x, classes, *, normalized=True, seed=7, **options):
    """Maps, and what was hooked."""
    torch.manual_seed(seed)
    with kind(model, layers, **options) as extractor:
        maps = extractor(classes, model(x), normalized=normalized)
        inner = getattr(extractor, "base_cam", extractor)
        return maps, list(inner.hook_a), list(inner.hook_g)
