"""Models of which it is known what every pixel does, and images for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearModel(nn.Module):
    """Scores that are sums of ``weight * pixel``: contributions and gradients are known."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)  # [classes, C, H, W]

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,kchw->bk", x, self.weight)

    def contributions(self, x: Tensor, label: int) -> Tensor:
        """Gradient times input, summed over channels ``[B, H, W]``."""
        return (x * self.weight.detach()[label]).sum(1)

    def gradient(self, x: Tensor, label: int) -> Tensor:
        """Gradient, summed over channels ``[B, H, W]``."""
        return self.weight.detach()[label].sum(0).expand(len(x), -1, -1)


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def linear_model(channels: int = 2, size: tuple[int, int] = (4, 4)) -> LinearModel:
    return LinearModel(seeded(3, channels, *size, seed=7)).eval()


def small_net(channels: int = 3) -> nn.Sequential:
    """A network that is not sure of its classes, nor of one class alone."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    ).eval()
    with torch.no_grad():
        net[-1].weight.mul_(30)
    return net


def unit_maps(*shape: int, seed: int = 3) -> Tensor:
    """Maps in [0, 1] without ties."""
    return seeded(*shape, seed=seed, dtype=torch.float32).sigmoid()
