"""Methods that judge channels by statistics of their activations alone."""

from __future__ import annotations

import torch
from torch import Tensor

from camfuse.methods.base import Pair, WeightMethod, wide

_DEVIATIONS = 2


def share_of_peaks(pair: Pair) -> Tensor:
    """Of each channel, which part of its positions stands out ``[B, C]``, in [0, 1].

    A position stands out where it exceeds the channel's mean by more than two standard deviations
    of the population. NaN does not.
    """
    A = wide(pair.activations.detach())
    deviation, mean = torch.std_mean(A, dim=(2, 3), correction=0, keepdim=True)
    return (mean + _DEVIATIONS * deviation < A).to(A.dtype).mean((2, 3))


FEATURE_METHODS = (
    WeightMethod(
        name="fem",
        title="FEM",
        weights=share_of_peaks,
        formula="sum_k w_k A_k, w_k = the part of positions where A_k > mean_p A_k + 2 std_p A_k",
        source="Fuad et al., Features Understanding in 3D CNNs, IPTA 2020",
        gradients=False,
    ),
)
