"""How much of the image a map lights up: what a reader has to look at. No model takes part."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from camfuse.metrics.maps import checked_maps


def complexity(maps: Tensor) -> Tensor:
    """The share of the image that a map lights up: its mean, its L1 norm by its pixels.

    Source: Poppi et al., "Revisiting the evaluation of class activation mapping for
    explainability", CVPR Workshops 2021, section 3.

    Args:
        maps: ``[B, h, w]`` in [0, 1]; upsampling leaves the result as it is, but for the border.

    Returns:
        ``[B]`` in [0, 1], f64: 0 for a map of zeros, 1 for one of ones. Lower is better.

    Raises:
        TypeError: If it is no tensor.
        ValueError: If maps do not fit; the message names the sample.
    """
    return checked_maps(maps, unit=True).flatten(1).double().mean(1)


def entropy(maps: Tensor) -> Tensor:
    """Entropy of how a map is distributed over its pixels, ``-sum_p s_p ln s_p``.

    ``s_p = |m_p| / sum |m|`` is a pixel's share of the map. A factor does not change the result,
    the number of pixels does: compare maps of one size.

    Source: Bhatt et al., "Evaluating and aggregating feature-based model explanations", IJCAI 2020,
    where it is called complexity.

    Args:
        maps: ``[B, h, w]``, of either sign.

    Returns:
        ``[B]`` in [0, ln(h w)], nats, f64: 0 for a single pixel, ln(h w) for a constant map. That
        of zeros counts as constant, too: of no pixel does it say that it matters more. Lower is
        better.

    Raises:
        TypeError: If it is no tensor.
        ValueError: If maps do not fit; the message names the sample.
    """
    sizes = checked_maps(maps).flatten(1).double().abs()
    largest = sizes.amax(1, keepdim=True)
    sizes = sizes / largest.where(largest > 0, 1)  # their sum is finite then, whatever they are
    entropies: Tensor = torch.special.entr(sizes / sizes.sum(1, keepdim=True).clamp(min=1)).sum(1)
    return entropies.where(largest[:, 0] > 0, math.log(sizes.shape[1]))
