"""What a capture finds: one record per layer, and the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from camfuse.stack import Skipped
from camfuse.targets import Scores

Reshape = Callable[[Tensor], Tensor]
"""From an output of unknown layout (and from its gradient) to ``[B, C, h, w]``."""


@dataclass(eq=False)
class Captured:
    """One captured call of a module.

    Attributes:
        name: Module name, with ``#2`` for a second call.
        type: Class name of the module.
        index: Position in the order of execution among captured layers.
        shape: ``(C, h, w)``.
        shown: Whether it becomes a frame.
        alias_of: The earlier record of the same tensor, if any.
        reached: Whether any target's gradient has arrived.
    """

    name: str
    type: str
    index: int
    shape: tuple[int, int, int]
    shown: bool = True
    alias_of: Captured | None = None
    reached: bool = False
    # The activation until the last gradient has come, what tells whether it was overwritten, and
    # how to fold both into [B, C, h, w].
    activation: Tensor | None = None
    watched: Tensor | None = None
    version: int = 0
    learned: bool = False
    spatial: Reshape = field(default=lambda tensor: tensor)

    @property
    def original(self) -> Captured:
        """The record that this one is an alias of, or itself."""
        return self.alias_of or self


class Visitor(Protocol):
    """Receives one layer's pair for one target, during the backward pass."""

    def __call__(
        self, layer: Captured, target: int, activations: Tensor, gradients: Tensor, /
    ) -> None:
        """``activations`` and ``gradients`` are ``[B, C, h, w]``, valid during the call only."""


@dataclass(frozen=True)
class Capture:
    """What one pass found, besides what it gave to the visitor.

    Attributes:
        layers: Captured layers in order of execution, aliases included.
        skipped: Selected layers that are not shown, and why.
        warnings: What the reader should know.
        scores: Resolved targets.
        batch: Number of samples.
        input_size: ``(H, W)`` of the first image among the inputs.
    """

    layers: tuple[Captured, ...]
    skipped: tuple[Skipped, ...]
    warnings: tuple[str, ...]
    scores: Scores
    batch: int
    input_size: tuple[int, int]
