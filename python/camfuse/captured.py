"""What a capture finds: one record per layer, and the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from camfuse.stack import Skipped
from camfuse.targets import Scores

Reshape = Callable[[Tensor], Tensor]
"""From an output of unknown layout (and from its gradient) to ``[B, C, *grid]``."""

UNREACHED = "target does not depend on it"
"""Why a captured layer that no gradient reached is not shown."""


@dataclass(eq=False)
class Captured:
    """One captured call of a module.

    Attributes:
        name: Module name, with ``#2`` for a second call.
        type: Class name of the module.
        index: Position in the order of execution among captured layers.
        shape: ``(C, *grid)``, where the grid is ``(h, w)`` for images.
        module: The module that was called.
        call: Which of its calls in the pass this is, from 1.
        shown: Whether it becomes a frame.
        alias_of: The earlier record of the same tensor, if any.
        reached: Whether any target's gradient has arrived.
    """

    name: str
    type: str
    index: int
    shape: tuple[int, ...]
    module: nn.Module
    call: int
    shown: bool = True
    alias_of: Captured | None = None
    reached: bool = False
    # The activation until the last gradient has come, what tells whether it was overwritten, and
    # how to fold both into [B, C, rows, columns].
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
        """Both tensors are ``[B, C, rows, columns]``, valid during the call only.

        Volumes ``(D, h, w)`` have rows of ``D x h``, sequences one row.
        """


@dataclass(frozen=True)
class Capture:
    """What one pass found, besides what it gave to the visitor.

    Attributes:
        layers: Captured layers in order of execution, aliases included.
        skipped: Selected layers that are not shown, and why.
        warnings: What the reader should know.
        scores: Resolved targets.
        batch: Number of samples.
        input_size: ``(H, W)`` of the first image among the inputs; ``(L,)``, ``(D, H, W)``.
    """

    layers: tuple[Captured, ...]
    skipped: tuple[Skipped, ...]
    warnings: tuple[str, ...]
    scores: Scores
    batch: int
    input_size: tuple[int, ...]


def join(parts: Sequence[Capture]) -> Capture:
    """What one pass would have found over all the samples of several.

    Raises:
        RuntimeError: If other layers ran, or ran otherwise, for other samples.
    """
    layers: dict[str, Captured] = {}
    names: dict[int, str] = {}
    for part in parts:
        for layer in part.layers:
            twin = layers.setdefault(layer.name, layer)
            if names.setdefault(layer.index, layer.name) != layer.name or (
                (twin.index, twin.shape) != (layer.index, layer.shape)
            ):
                raise RuntimeError(
                    f"{layer.name}: the model runs other layers, or otherwise, for other samples; "
                    "its batch cannot be split, pass samples one by one"
                )
    reached = {(name, UNREACHED) for name in layers}
    skipped = dict.fromkeys(one for part in parts for one in part.skipped)
    scores = [part.scores for part in parts]
    return Capture(
        layers=tuple(sorted(layers.values(), key=lambda layer: layer.index)),
        skipped=tuple(one for one in skipped if (one.name, one.reason) not in reached),
        warnings=tuple(dict.fromkeys(warning for part in parts for warning in part.warnings)),
        scores=Scores(
            values=tuple(torch.cat(of) for of in zip(*(s.values for s in scores), strict=True)),
            indices=torch.cat([one.indices for one in scores], 1),
            probabilities=torch.cat([one.probabilities for one in scores], 1),
        ),
        batch=sum(part.batch for part in parts),
        input_size=parts[0].input_size,
    )
