"""What a CAM method is to the engine: what it needs, what it costs, and how it makes a map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from camfuse.captured import Captured, Reshape
from camfuse.ops import Rule
from camfuse.targets import Scores, Target

if TYPE_CHECKING:
    from camfuse.inputs import Inputs
    from camfuse.layers import LayerSelection


class UndefinedError(Exception):
    """A layer that a method says nothing about; the message is the reason."""


@dataclass(frozen=True)
class Pair:
    """What one layer shows for one target.

    Attributes:
        layer: The layer.
        activations: ``[B, C, h, w]``.
        gradients: Of the target score, likewise; ``None`` if no method asked for them.
        seed: For methods that draw at random.
    """

    layer: Captured
    activations: Tensor
    gradients: Tensor | None
    seed: int = 0

    @property
    def known_gradients(self) -> Tensor:
        """The gradients, of a method that asked for them."""
        assert self.gradients is not None
        return self.gradients


def wide(tensor: Tensor) -> Tensor:
    """The tensor in the dtype of maps, which sums are taken in: f64 as it is, all others f32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@dataclass(frozen=True, kw_only=True)
class Method:
    """One CAM method.

    Attributes:
        name: As users write it.
        title: As its paper writes it.
        formula: The map before ReLU. Sums run over the positions p of a channel's plane; k runs
            over channels, A are activations, G gradients.
        source: Where it was published.
        gradients: Whether it needs the gradients.
        cost: In passes over the model.
        native: The native op that does the work, or ``""``.
        differentiable: Whether its maps can stand in a loss (``create_graph=True``).
        whole: Why it has no map per layer, and what to call instead; ``""`` if it has.
        only: Which layers it is defined for; ``""`` for all.
        target: What it explains instead of a target, if anything.
        second_order: Whether it differentiates the gradients.
    """

    name: str
    title: str
    formula: str
    source: str
    gradients: bool = True
    cost: str = "one pass for all layers"
    native: str = "layer_cam"
    differentiable: bool = True
    whole: str = ""
    only: str = ""
    target: Callable[[Target], Target] | None = None
    second_order: bool = False


@dataclass(frozen=True, kw_only=True)
class RuleMethod(Method):
    """A map that a rule of the native op makes of activations and gradients.

    Attributes:
        rule: The rule.
    """

    rule: Rule


@dataclass(frozen=True, kw_only=True)
class WeightMethod(Method):
    """A map that is a weighted sum of activations.

    Attributes:
        weights: From a layer's pair to ``[B, C]``, in the activations' dtype or wider; may raise
            :class:`UndefinedError`.
    """

    weights: Callable[[Pair], Tensor]


@dataclass(frozen=True, kw_only=True)
class MapMethod(Method):
    """A map made of a layer's pair in a way of its own.

    Attributes:
        make: From a layer's pair to a map ``[B, h, w]`` and what it would amount to at most if its
            terms did not cancel ``[B]``, f32 or f64; may raise :class:`UndefinedError`.
    """

    make: Callable[[Pair], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Scene:
    """What was asked and what a first pass found, for methods that run the model again.

    Attributes:
        model: The unwrapped model.
        inputs: As for :func:`camfuse.layer_cams`, likewise the next four.
        target: Class indices where the caller's target is a class, so that it stays the same.
        selection: Which layers were captured.
        reshape: For outputs of unknown layout.
        allow_training: Whether modules may be in training mode.
        seed: For methods that draw at random.
        batch_size: How many perturbed samples may go through the model at once.
        layers: Those of the captured layers that a map is wanted of, in order of execution.
        scores: Of the unperturbed inputs.
        batch: Number of samples.
    """

    model: nn.Module
    inputs: Inputs
    target: Target
    selection: LayerSelection
    reshape: Reshape | None
    allow_training: bool
    seed: int
    batch_size: int
    layers: Sequence[Captured]
    scores: Scores
    batch: int


@dataclass(frozen=True)
class LayerMaps:
    """Maps of one layer for one target.

    Attributes:
        layer: The layer.
        target: Position of the target.
        maps: ``[B, h, w]``, or ``[B, P]`` of P positions.
        scales: What the maps would amount to at most if their terms did not cancel ``[B]``.
    """

    layer: Captured
    target: int
    maps: Tensor
    scales: Tensor


@dataclass(frozen=True, kw_only=True)
class PassMethod(Method):
    """Maps that take passes of their own.

    Attributes:
        run: Yields the maps of every layer and target it is defined for; an
            :class:`UndefinedError` in place of maps says why it is not for that layer.
    """

    run: Callable[[Scene], Iterator[LayerMaps | tuple[Captured, UndefinedError]]]
    gradients: bool = False
    differentiable: bool = False
