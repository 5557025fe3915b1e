"""Maps from principal components of activations, linear and with a kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from camfuse.compat.pytorch_grad_cam.arrays import Array, FloatArray, float32_of, tensor_of
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


def _without_nan(activation_batch: Array | Tensor) -> Tensor:
    activations = tensor_of(activation_batch)
    if activations.ndim < 3 or not activations.is_floating_point():
        raise ValueError(
            f"activation_batch: expected (B, C, h, w), floating, got {tuple(activations.shape)} "
            f"of {activations.dtype}"
        )
    return activations.where(~activations.isnan(), 0)
