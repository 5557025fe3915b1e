"""Scores inside and outside of a region, counted between thresholds."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check_step(step: float, *, name: str = "step") -> float:
    """The distance between thresholds.

    Raises:
        ValueError: If it is not in (0, 1].
    """
    if not 0 < step <= 1:
        raise ValueError(f"{name}: expected more than 0 and at most 1, got {step}")
    return float(step)


def thresholds(step: float) -> Tensor:
    """``0, step, 2 step, ...`` below 1, f64 on the CPU."""
    check_step(step)
    return torch.arange(math.ceil(1 / step - 1e-9), dtype=torch.float64) * step


def histograms(scores: Tensor, positive: Tensor, counted: Tensor, edges: Tensor) -> Tensor:
    """How many scores lie from each edge up to the next, those outside and inside apart.

    Args:
        scores: ``[B, H, W]``, none below the first edge.
        positive: ``[B, H, W]``, bool: inside.
        counted: ``[B, H, W]``, bool: the pixels that count.
        edges: ``[E]``, f64, ascending; the last interval has no end.

    Returns:
        ``[B, 2, E]``, int64: outside, then inside.
    """
    # In f64 scores of any precision are compared as they are.
    bins = torch.bucketize(scores.double(), edges.to(scores.device), right=True) - 1
    sample = torch.arange(len(scores), device=scores.device)[:, None, None]
    place = (sample * 2 + positive) * len(edges) + bins
    counts = torch.bincount(place[counted], minlength=len(scores) * 2 * len(edges))
    return counts.view(len(scores), 2, len(edges))


def reached(counts: Tensor) -> Tensor:
    """From counts per interval to counts of all that reach its lower edge."""
    return counts.flip(-1).cumsum(-1).flip(-1)
