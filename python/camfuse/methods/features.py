"""Methods that judge channels by statistics of their activations alone."""

from __future__ import annotations

import torch
from torch import Tensor

from camfuse.methods.base import Pair, WeightMethod, wide


def share_of_peaks(activations: Tensor, deviations: float = 2) -> Tensor:
    """Of each channel, which part of its positions stands out ``[B, C]``, in [0, 1].

    A position stands out where it exceeds the channel's mean by more than so many standard
    deviations of the population. NaN does not.

    Args:
        activations: ``[B, C, *grid]``.
        deviations: How many.
    """
    A = wide(activations)
    grid = tuple(range(2, A.ndim))
    deviation, mean = torch.std_mean(A, dim=grid, correction=0, keepdim=True)
    return (mean + deviations * deviation < A).to(A.dtype).mean(grid)


def _weights(pair: Pair) -> Tensor:
    return share_of_peaks(pair.activations.detach())


FEATURE_METHODS = (
    WeightMethod(
        name="fem",
        title="FEM",
        weights=_weights,
        formula="sum_k w_k A_k, w_k = the part of positions where A_k > mean_p A_k + 2 std_p A_k",
        source="Fuad et al., Features Understanding in 3D CNNs, IPTA 2020",
        gradients=False,
    ),
)
