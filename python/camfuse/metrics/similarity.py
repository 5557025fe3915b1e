"""How alike two maps are: many pairs of one size at once, on their device, in f64.

Pairs of which a map is constant, or not finite, have no similarity: NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from camfuse.metrics.correlation import correlation
from camfuse.metrics.maps import normalized

_WINDOW, _LEAST_WINDOW = 7, 3
_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of maps ``[N, *grid]``: ``[N]`` in [-1, 1]."""
    nothing = _says_nothing(a) | _says_nothing(b)
    return correlation(a.flatten(1), b.flatten(1)).masked_fill(nothing, torch.nan)


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of maps ``[N, *grid]``: ``[N]`` in [-1, 1].

    Values that tie share the mean of their ranks.
    """
    nothing = _says_nothing(a) | _says_nothing(b)
    return pearson(_ranks(a), _ranks(b)).masked_fill(nothing, torch.nan)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of maps ``[N, *grid]``, each set on [0, 1] first: ``[N]`` in [-1, 1].

    Wang et al. 2004, with uniform windows of 7 along each axis, or the longest odd length that
    fits, and the sample covariance; the mean over all windows that lie within the map. NaN for
    grids with an axis shorter than 3.
    """
    rank, shortest = a.ndim - 1, min(a.shape[1:])
    if shortest < _LEAST_WINDOW:
        return a.new_full((len(a),), torch.nan, dtype=torch.float64)
    window = min(_WINDOW, shortest - (shortest + 1) % 2)
    x, y = (
        normalized(one.double().flatten(1)[:, None]).view(len(one), 1, *one.shape[1:])
        for one in (a, b)
    )

    def mean(values: Tensor) -> Tensor:
        return _POOL[rank](values, window, stride=1)

    count = window**rank
    mx, my = mean(x), mean(y)
    vx, vy, vxy = (
        count / (count - 1) * (mean(p * q) - mp * mq)
        for p, q, mp, mq in ((x, x, mx, mx), (y, y, my, my), (x, y, mx, my))
    )
    c1, c2 = 0.01**2, 0.03**2
    local = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    found: Tensor = local.flatten(1).mean(1)
    return found.masked_fill(_says_nothing(a) | _says_nothing(b), torch.nan)


Similarity = Callable[[Tensor, Tensor], Tensor]

SIMILARITIES: Mapping[str, Similarity] = {"spearman": spearman, "ssim": ssim, "pearson": pearson}
"""By name; all are 1 for equal maps."""


def surrogates(maps: Tensor, generator: torch.Generator) -> Tensor:
    """Random maps as smooth as ``maps`` ``[N, *grid]``: their spectrum with random phases.

    Theiler et al. 1992, "Testing for nonlinearity in time series: the method of surrogate data".

    Args:
        maps: The maps.
        generator: On the CPU.

    Returns:
        ``[N, *grid]``, f64, with the same mean.
    """
    axes = tuple(range(1, maps.ndim))
    noise = torch.randn(maps.shape, generator=generator, dtype=torch.float64).to(maps.device)
    spectrum = torch.fft.rfftn(noise, dim=axes)  # of something real, so that the result is, too
    phase = spectrum / spectrum.abs().clamp(min=torch.finfo(torch.float64).tiny)
    phase[(slice(None), *(0,) * len(axes))] = 1
    sizes = torch.fft.rfftn(maps.double(), dim=axes).abs()
    made: Tensor = torch.fft.irfftn(sizes * phase, s=maps.shape[1:], dim=axes)
    return made


def _says_nothing(maps: Tensor) -> Tensor:
    """Which maps are constant or not finite."""
    flat = maps.flatten(1)
    return (flat == flat[:, :1]).all(1) | ~flat.isfinite().all(1)


def _ranks(maps: Tensor) -> Tensor:
    values = maps.flatten(1).contiguous()
    ascending = values.sort(1).values
    first = torch.searchsorted(ascending, values)
    last = torch.searchsorted(ascending, values, right=True)
    return (first + last).double()  # twice the mean rank: correlations do not mind
