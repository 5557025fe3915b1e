"""Masks that tests impute, and SciPy's direct solution of the same system."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHTS = {(dy, dx): 1 / 6 if 0 in (dy, dx) else 1 / 12 for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
del WEIGHTS[0, 0]


def solved_directly(image: Tensor, mask: Tensor) -> Tensor:
    """``[C, H, W]``, f64: one equation for each removed pixel, by sparse factorization."""
    pixels, removed = image.double().numpy(), mask.numpy()
    H, W = removed.shape
    index = np.full((H, W), -1)
    index[removed] = np.arange(removed.sum())
    ys, xs = np.nonzero(removed)
    system = scipy.sparse.lil_matrix((len(ys), len(ys)))
    right = np.zeros((len(ys), len(pixels)))
    for i, (y, x) in enumerate(zip(ys, xs, strict=True)):
        for (dy, dx), weight in WEIGHTS.items():
            u, v = y + dy, x + dx
            if 0 <= u < H and 0 <= v < W:
                system[i, i] += weight
                if removed[u, v]:
                    system[i, index[u, v]] = -weight
                else:
                    right[i] += weight * pixels[:, u, v]
    imputed = pixels.copy()
    solution = scipy.sparse.linalg.spsolve(system.tocsc(), right)
    imputed[:, removed] = solution.reshape(len(ys), -1).T
    return torch.from_numpy(imputed)


def photograph(channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth shapes, edges and noise, each channel in a range of its own."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, channels, 4, 5, generator=generator, dtype=torch.float64)
    image = F.interpolate(coarse, (height, width), mode="bicubic")[0]
    image = image + (image > 0.3) + 0.1 * torch.randn(image.shape, generator=generator)
    scales = torch.logspace(0, 2, channels, dtype=torch.float64)[:, None, None]
    return 30 + scales * image


def masks(height: int, width: int, seed: int = 0) -> dict[str, Tensor]:
    """By name, ``[H, W]``, true where a pixel is removed."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(height)[:, None].expand(height, width)
    x = torch.arange(width)[None].expand(height, width)
    radius = ((y - height / 2) ** 2 + (x - width / 2) ** 2).sqrt() / max(height, width)
    noise = torch.rand(height, width, generator=generator)
    blobs = F.interpolate(
        torch.rand(1, 1, 7, 7, generator=generator), (height, width), mode="bilinear"
    )[0, 0]
    alone = torch.ones(height, width, dtype=torch.bool)
    alone[height // 3, width // 5] = False
    two = alone.clone()
    two[-1, -1] = False
    return {
        "blobs": blobs > blobs.median(),
        "most of the blobs": blobs > blobs.quantile(0.2),
        "ring": (radius > 0.15) & (radius < 0.35),
        "thin rings": (radius * 40).long() % 4 > 0,
        "stripes": x % 8 > 0,
        "dense stripes": y % 3 > 0,
        "noise": noise < 0.8,
        "sparse noise": noise < 0.2,
        "nearly all": noise < 0.995,
        "border": ~((y > 2) & (y < height - 3) & (x > 2) & (x < width - 3)),
        "all but the border": (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1),
        "half": x < width // 2,
        "all but one": alone,
        "all but two": two,
        "one": ~alone,
        "none": torch.zeros_like(alone),
    }
