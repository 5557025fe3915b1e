"""Images and maps: to tensors and back, scaled, laid over each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from camfuse.compat.pytorch_grad_cam.arrays import Array, FloatArray, float32_of, tensor_of


def scale_cam_image(
    cam: Array | Tensor | Sequence[Array], target_size: Sequence[int] | None = None
) -> FloatArray:
    """Maps, each normalized to [0, 1] and then resized.

    Images are resized bilinearly, as ``cv2.resize`` does (within 2e-7, also to smaller sizes);
    volumes by cubic splines, as ``scipy.ndimage.zoom`` does.

    Args:
        cam: ``[B, h, w]`` or ``[B, d, h, w]``.
        target_size: ``(W, H)`` or ``(W, H, D)``; None leaves the size.

    Returns:
        ``[B, H, W]`` or ``[B, D, H, W]``, f32. A constant map becomes 0.
    """
    maps = tensor_of(cam if isinstance(cam, Tensor) else np.asarray(cam))
    if maps.ndim < 3 or (target_size is not None and len(target_size) != maps.ndim - 1):
        raise ValueError(
            "cam: expected (B, h, w) for a target_size (W, H) or (B, d, h, w) for (W, H, D), got "
            f"{tuple(maps.shape)} for {target_size}"
        )
    if maps.dtype != torch.float64:
        maps = maps.float()
    grid = tuple(range(1, maps.ndim))
    maps = maps - maps.amin(grid, keepdim=True)
    maps = maps / (1e-7 + maps.amax(grid, keepdim=True))
    return float32_of(maps if target_size is None else _resized(maps, target_size[::-1]))


def scale_accross_batch_and_channels(
    tensor: Array | Tensor, target_size: Sequence[int]
) -> FloatArray:
    """:func:`scale_cam_image` of every channel: from ``[B, C, h, w]`` to ``[B, C, H, W]``, f32.

    Args:
        tensor: ``[B, C, h, w]`` or ``[B, C, d, h, w]``.
        target_size: ``(W, H)`` or ``(W, H, D)``.
    """
    maps = tensor_of(tensor)
    scaled = scale_cam_image(maps.flatten(0, 1), target_size)
    return scaled.reshape(*maps.shape[:2], *scaled.shape[1:])


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """In f64: positions computed in f32 are off by 1e-5 in large maps."""
    maps = maps.float().double()
    if len(size) == 2:
        return F.interpolate(maps[:, None], tuple(size), mode="bilinear", align_corners=False)[:, 0]
    for axis, target in enumerate(size, start=1):
        matrix = _spline_matrix(maps.shape[axis], target).to(maps.device)
        maps = (maps.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    return maps


def _spline_matrix(source: int, target: int) -> Tensor:
    """Resizes a line by the cubic spline through its values ``[target, source]``, f64.

    First and last values stay where they are, and the spline is mirrored there. Its coefficients
    solve the system of its values at the whole positions.
    """
    step = (source - 1) / max(target - 1, 1) if target > 1 else 1.0
    at_values = _cubic_basis(np.arange(source, dtype=np.float64), source)
    at_targets = _cubic_basis(np.arange(target) * step, source)
    return torch.from_numpy(np.linalg.solve(at_values.T, at_targets.T).T)


def _cubic_basis(positions: Array, count: int) -> Array:
    """What each of ``count`` cubic B-splines, mirrored at the ends, adds at each position."""
    period = max(2 * (count - 1), 1)
    basis = np.zeros((len(positions), count))
    for tap in range(-1, 3):
        knot = np.floor(positions).astype(int) + tap
        distance = np.abs(positions - knot)
        inner = 2 / 3 - distance**2 + distance**3 / 2
        outer = np.maximum(2 - distance, 0) ** 3 / 6
        mirrored = np.minimum(knot % period, -knot % period) if count > 1 else 0 * knot
        np.add.at(
            basis, (np.arange(len(positions)), mirrored), np.where(distance < 1, inner, outer)
        )
    return basis
