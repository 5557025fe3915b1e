"""The native ops in plain PyTorch: readable, slow, and the oracle of every test.

Written for clarity, not speed, and valid for any dtype (run it in f64 to judge the native ops).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_GRADCAM_PLUS_PLUS_EPSILON = 1e-6
_XGRADCAM_EPSILON = 1e-7


def layer_cam(
    activations: Tensor,
    gradients: Tensor | None,
    rules: Sequence[str],
    *,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Maps ``[R, B, h, w]`` and ranges ``[R, B, 2]``; see :func:`camfuse.ops.layer_cam`."""
    maps = torch.stack([_rule_map(rule, activations, gradients, weights) for rule in rules])
    planes = maps.flatten(2)
    ranges = torch.stack([planes.amin(-1), planes.amax(-1)], dim=-1)
    return maps, ranges


def fused_cam(
    activations: Tensor,
    gradients: Tensor | None,
    rule: str,
    size: tuple[int, int],
    *,
    weights: Tensor | None = None,
    relu: bool = True,
) -> Tensor:
    """Finished map ``[B, H, W]``; see :func:`camfuse.ops.fused_cam`."""
    maps, _ = layer_cam(activations, gradients, [rule], weights=weights)
    map_ = maps[0].clamp(min=0) if relu else maps[0]
    low, high = map_.amin((1, 2), keepdim=True), map_.amax((1, 2), keepdim=True)
    normalized = torch.where(low == high, torch.zeros_like(map_), (map_ - low) / (high - low))
    return F.interpolate(normalized[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def channel_weights(rule: str, A: Tensor, G: Tensor) -> Tensor:
    """The weight ``[B, C]`` of each channel, for the rules that have one.

    gradcam: mean of ``G`` (Selvaraju et al. 2017, eq. 1). gradcam++: Chattopadhay et al. 2018,
    eq. 19, with the scores' higher derivatives as powers of ``G``. xgradcam: Fu et al. 2020, eq. 8.
    """
    if rule == "gradcam":
        return G.mean((2, 3))
    if rule == "gradcam++":
        total = A.sum((2, 3), keepdim=True)
        denominator = 2 * G**2 + G**3 * total + _GRADCAM_PLUS_PLUS_EPSILON
        alpha = torch.where(G == 0, torch.zeros_like(G), G**2 / denominator)
        return (G.clamp(min=0) * alpha).sum((2, 3))
    if rule == "xgradcam":
        return (G * A).sum((2, 3)) / (A.sum((2, 3)) + _XGRADCAM_EPSILON)
    raise ValueError(f"rule {rule!r} has no channel weights")


def _rule_map(rule: str, A: Tensor, G: Tensor | None, weights: Tensor | None) -> Tensor:
    """One signed map ``[B, h, w]``: a weighted sum over channels, or of an element-wise product."""
    if rule == "weighted":
        assert weights is not None
        return (weights[:, :, None, None] * A).sum(1)
    assert G is not None
    if rule == "hirescam":  # Draelos & Carin 2020
        return (G * A).sum(1)
    if rule == "elementwise":
        return (G * A).clamp(min=0).sum(1)
    if rule == "layercam":  # Jiang et al. 2021, eq. 4
        return (G.clamp(min=0) * A).sum(1)
    return (channel_weights(rule, A, G)[:, :, None, None] * A).sum(1)
