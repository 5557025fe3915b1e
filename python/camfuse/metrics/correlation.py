"""Correlation that is defined everywhere."""

from __future__ import annotations

from torch import Tensor


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation along the last axis, f64, in [-1, 1].

    0 where one side is constant: it goes along with nothing.
    """
    a, b = (_centered(one) for one in (a, b))
    lengths = a.norm(dim=-1) * b.norm(dim=-1)
    rho: Tensor = (a * b).sum(-1) / lengths.where(lengths > 0, 1)
    return rho.clamp(-1, 1)


def _centered(values: Tensor) -> Tensor:
    """Values less their mean, at most 1 in size: neither tiny nor huge ones leave f64's range."""
    values = values.double()
    values = values - values.amin(-1, keepdim=True)  # makes constants exactly 0, a mean may not
    span = values.amax(-1, keepdim=True)
    values = values / span.where(span > 0, 1)
    return values - values.mean(-1, keepdim=True)
