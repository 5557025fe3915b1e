"""Maps from principal components of activations, linear and with a kernel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from camfuse.compat.pytorch_grad_cam.arrays import Array, FloatArray, float32_of, tensor_of
from camfuse.methods.kernel import largest_eigenpair, less_offset
from camfuse.ops import principal_map


def get_2d_projection(activation_batch: Array | Tensor) -> FloatArray:
    """Projection of every sample's positions onto their first principal component.

    The peer's maps have the sign that LAPACK happens to give. These have the one that makes a map
    agree with the energy of the activations (their covariance is not negative), so maps are the
    peer's up to their sign.

    Args:
        activation_batch: ``[B, C, *grid]``, floating. NaN count as 0.

    Returns:
        ``[B, *grid]``, f32.
    """
    activations = _without_nan(activation_batch)
    with torch.no_grad():
        maps = principal_map(activations.flatten(2)[..., None])[0]
    return float32_of(maps.view(len(maps), *activations.shape[2:]))


def get_2d_projection_with_sign_correction(activation_batch: Array | Tensor) -> FloatArray:
    """The same with the sign of Seg-Eigen-CAM: the value furthest from 0 is positive.

    Source: Chung and Ying, "Seg-Eigen-CAM", Appl. Sci. 2025, 15(13), 7562, equation 13.

    Args:
        activation_batch: ``[B, C, *grid]``, floating. NaN count as 0.

    Returns:
        ``[B, *grid]``, f32.
    """
    maps = get_2d_projection(activation_batch)
    grid = tuple(range(1, maps.ndim))
    low, high = (of(maps, axis=grid, keepdims=True) for of in (np.min, np.max))
    return np.where(np.abs(low) > np.abs(high), -maps, maps)


def get_2d_projection_kernel(
    activation_batch: Array | Tensor, kernel: str = "sigmoid", gamma: float | None = None
) -> FloatArray:
    """Projection onto the first component of a kernel PCA of the positions.

    The value furthest from 0 is positive, as in scikit-learn's ``KernelPCA``.

    Args:
        activation_batch: ``[B, C, *grid]``, floating. NaN count as 0.
        kernel: ``"linear"``, ``"poly"`` (cubic), ``"rbf"``, ``"sigmoid"`` or ``"cosine"``.
        gamma: Scale of the kernels that have one; None is 1 / C.

    Returns:
        ``[B, *grid]``, f32.

    Raises:
        ValueError: If there is no such kernel.
    """
    if kernel not in _KERNELS:
        raise ValueError(f"kernel: expected one of {', '.join(_KERNELS)}, got {kernel!r}")
    activations = _without_nan(activation_batch)
    if activations.dtype != torch.float64:
        activations = activations.float()
    gamma = 1 / activations.shape[1] if gamma is None else gamma
    maps = torch.stack([_kernel_map(one.flatten(1).T, kernel, gamma) for one in activations])
    return float32_of(maps.view(len(maps), *activations.shape[2:]))


# Up to constants, which centering takes away: so small values lose no digits.
_KERNELS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "linear": lambda rows, gamma: rows @ rows.T,
    "poly": lambda rows, gamma: _cube_less_one(gamma * (rows @ rows.T)),
    "rbf": lambda rows, gamma: torch.expm1(-gamma * torch.cdist(rows, rows).square()),
    "sigmoid": lambda rows, gamma: less_offset(gamma * (rows @ rows.T)),
    "cosine": lambda rows, gamma: F.normalize(rows) @ F.normalize(rows).T,
}


def _kernel_map(rows: Tensor, kernel: str, gamma: float) -> Tensor:
    """Of rows ``[P, C]``, the map ``[P]``."""
    matrix = _KERNELS[kernel](rows - rows.mean(0), gamma)
    matrix = matrix - matrix.mean(0)
    matrix -= matrix.mean(1, keepdim=True)
    value, vector = largest_eigenpair(matrix)
    furthest = vector[vector.abs().argmax()]
    return vector * value.clamp(min=0).sqrt() * furthest.sign()


def _cube_less_one(products: Tensor) -> Tensor:
    """``(products + 1) ** 3 - 1``."""
    return products * (3 + products * (3 + products))


def _without_nan(activation_batch: Array | Tensor) -> Tensor:
    activations = tensor_of(activation_batch)
    if activations.ndim < 3 or not activations.is_floating_point():
        raise ValueError(
            f"activation_batch: expected (B, C, h, w), floating, got {tuple(activations.shape)} "
            f"of {activations.dtype}"
        )
    return activations.where(~activations.isnan(), 0)
