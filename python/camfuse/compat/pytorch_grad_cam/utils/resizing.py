"""Maps at another size, with the numbers of ``cv2.resize`` and ``scipy.ndimage.zoom``."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Images bilinearly, volumes by cubic splines.

    Axis by axis, by matrices: that is fast for maps that are small, and exact to 2e-7 also for
    large ones. ``F.interpolate`` finds positions in f32 and is off by 1e-5 there.

    Args:
        maps: ``[B, *grid]``, f32, on the CPU.
        size: Of the new grid.

    Returns:
        ``[B, *size]``, f32.
    """
    for axis, (source, target) in enumerate(zip(maps.shape[1:], size, strict=True), start=1):
        if source != target:
            matrix = _resize_matrix(source, target, len(size) > 2)
            maps = (maps.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    return maps


@functools.lru_cache(maxsize=32)
def _resize_matrix(source: int, target: int, spline: bool) -> Tensor:
    """``[target, source]``, f32."""
    with torch.device("cpu"):  # whatever the caller's default is
        return (_spline_matrix if spline else _bilinear_matrix)(source, target).float()


def _bilinear_matrix(source: int, target: int) -> Tensor:
    """Resizes a line ``[target, source]``, f64: half-pixel centers, ends repeated."""
    positions = (torch.arange(target, dtype=torch.float64) + 0.5) * source / target - 0.5
    distances = positions.clamp(0, source - 1)[:, None] - torch.arange(source)
    return (1 - distances.abs()).clamp(min=0)


def _spline_matrix(source: int, target: int) -> Tensor:
    """Resizes a line by the cubic spline through its values ``[target, source]``, f64.

    The ends stay where they are, and the spline is mirrored there. Its coefficients solve the
    system of its values at whole positions.
    """
    whole = torch.arange(source, dtype=torch.float64)
    positions = torch.linspace(0, source - 1, target, dtype=torch.float64)
    at_whole, at_positions = (_cubic_basis(at, source) for at in (whole, positions))
    matrix: Tensor = torch.linalg.solve(at_whole, at_positions, left=False)
    return matrix


def _cubic_basis(positions: Tensor, count: int) -> Tensor:
    """What each of ``count`` cubic B-splines adds at each position, also through the mirrors."""
    knots = torch.arange(-2, count + 2)
    distances = (positions[:, None] - knots).abs()
    inner = 2 / 3 - distances**2 + distances**3 / 2
    outer = (2 - distances).clamp(min=0) ** 3 / 6
    period = max(2 * count - 2, 1)
    return torch.zeros(len(positions), count, dtype=positions.dtype).index_add_(
        1,
        torch.minimum(knots % period, -knots % period),
        torch.where(distances < 1, inner, outer),
    )
