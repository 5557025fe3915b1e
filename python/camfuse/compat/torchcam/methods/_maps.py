"""Maps at another resolution."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

_LINEAR = {2: "bilinear", 3: "trilinear"}


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps ``[B, *grid]`` of another size: linear with half-pixel centres, of sequences nearest."""
    mode = _LINEAR.get(maps.ndim - 1)
    aligned = {} if mode is None else {"align_corners": False}
    found: Tensor = F.interpolate(maps[:, None], tuple(size), mode=mode or "nearest", **aligned)
    return found[:, 0]
