"""One layer's finished map, whatever its grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from camfuse import ops
from camfuse.stack import resize


def finished_map(
    A: Tensor,
    G: Tensor,
    rule: ops.Rule,
    grid: Sequence[int],
    size: Sequence[int],
    *,
    weights: Tensor | None = None,
    relu: bool = True,
) -> Tensor:
    """What :func:`camfuse.ops.fused_cam` does for images, for sequences and volumes too.

    Args:
        A: Activations ``[B, C, rows, columns]``, as a capture hands them over.
        G: Their gradients.
        rule: The rule.
        grid: The grid of the layer, ``(L,)``, ``(h, w)`` or ``(D, h, w)``.
        size: As many numbers: the size of the finished map.
        weights: ``[B, C]``, for the rule ``weighted``.
        relu: Whether negative evidence becomes 0.

    Returns:
        ``[B, *size]`` in [0, 1], each sample normalised by its own range; constant maps are 0.
    """
    if len(grid) == 2:
        rows, columns = size
        return ops.fused_cam(A, G, rule, (rows, columns), weights=weights, relu=relu)
    raw, _ = ops.layer_cam(A, G if weights is None else None, [rule], weights=weights)
    maps = raw[0].view(len(A), *grid)
    maps = maps.clamp(min=0) if relu else maps
    low, high = maps.flatten(1).aminmax(dim=1)
    low, span = (one.view(-1, *[1] * len(grid)) for one in (low, high - low))
    scaled = torch.where(span > 0, (maps - low) / span, torch.zeros_like(maps))
    return resize(scaled, size, leading=1)
