"""What a CAM method is to the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from camfuse.ops import Rule

ChannelWeights = Callable[[str, Tensor, int], Tensor]
"""From a layer's name, its activations ``[B, C, h, w]`` and a seed to weights ``[B, C]``."""


@dataclass(frozen=True)
class Method:
    """One CAM method.

    Attributes:
        name: As users write it.
        rule: The native rule that makes its map.
        source: Where it was published.
        weights: For rule ``"weighted"``: what weighs the channels.
    """

    name: str
    rule: Rule
    source: str
    weights: ChannelWeights | None = None
