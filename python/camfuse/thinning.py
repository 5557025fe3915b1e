"""Fewer layers than were captured, so that a video can be short: by place, or by difference."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camfuse.checks import expect_whole
from camfuse.layers import LayerSelection
from camfuse.layouts import plane
from camfuse.stack import CamStack

STAGE_ENDS = "stage-ends"
_EVERY = "every:"
YBROAD = "ybroad"
"""The series of a stack that tells how faithful each layer's map is."""

_COMPARED_SIDE = 32  # maps are compared at this size


def split_thinning(layers: LayerSelection) -> tuple[LayerSelection, list[str]]:
    """Parts a selection of layers into what is captured and how that is thinned out afterwards.

    Args:
        layers: A selection whose texts may also be ``"stage-ends"`` and ``"every:N"``.

    Returns:
        The selection without those (``"leaf"`` if nothing is left of it), and those.

    Raises:
        ValueError: If the N of an ``every:N`` is not a whole number of at least 1.
    """
    if isinstance(layers, str | nn.Module):
        layers = [layers]
    if not isinstance(layers, Sequence):
        return layers, []  # select_layers() will say so
    steps = [item for item in layers if isinstance(item, str) and is_thinning(item)]
    for step in steps:
        if step != STAGE_ENDS:
            _every(step)
    kept = [item for item in layers if not (isinstance(item, str) and item in steps)]
    return (kept or ["leaf"] if steps else kept), steps


def thin_out(stack: CamStack, steps: Sequence[str]) -> CamStack:
    """The shown layers of ``stack`` that are left after every step.

    ``"stage-ends"`` keeps the last layer before the size ``(h, w)`` of the maps changes, in order
    of execution; ``"every:N"`` every N-th, counted back from the last, which always stays.
    """
    layers = thin([layer for layer in stack.layers if layer.shown], steps)
    return stack.select(layers=[layer.name for layer in layers])


class _Sized(Protocol):
    @property
    def size(self) -> tuple[int, ...]:
        """Of the layer's map."""


_Layer = TypeVar("_Layer", bound=_Sized)


def thin(layers: Sequence[_Layer], steps: Sequence[str]) -> list[_Layer]:
    """What the steps of :func:`thin_out` leave of layers in order of execution."""
    kept = list(layers)
    for step in steps:
        if step == STAGE_ENDS:
            stages = itertools.groupby(kept, lambda one: one.size)
            kept = [list(stage)[-1] for _, stage in stages]
        else:
            kept = kept[:: -_every(step)][::-1]
    return kept


def key_layers(stack: CamStack, count: int, scores: Tensor | None = None) -> list[int]:
    """Positions of the ``count`` layers whose maps differ most from each other, in order.

    Maps are compared as they are displayed in their own range, at one size, over all methods,
    targets and samples. Beginning with the last layer, whose map the decision rests on, the one
    farthest from all that were chosen is added each time (Gonzalez 1985, k-centre clustering).

    With scores, it begins with the layer of the highest, and every distance is multiplied by where
    the layer's score stands between the lowest, 0, and the highest, 1: a map that differs counts as
    far as it is a good one.

    Args:
        stack: The maps.
        count: How many, at least 1; all layers if there are no more.
        scores: How good each layer is ``[L, ...]``, such as ybROAD; the mean over all but the first
            axis is taken, and NaN for the lowest.

    Raises:
        ValueError: If ``count`` is less than 1, or there is not a row of scores for each layer.
    """
    expect_whole("keyframes", count, at_least=1)
    if scores is not None and scores.shape[:1] != (len(stack),):
        raise ValueError(
            f"scores: expected one for each of {len(stack)} layers, got shape {tuple(scores.shape)}"
        )
    if count >= len(stack):
        return list(range(len(stack)))
    stack = stack.cpu()
    pictures = torch.stack([_comparable(stack, i) for i in range(len(stack))])
    weights = _weights(scores, len(stack))
    chosen = [len(stack) - 1 if scores is None else int(weights.argmax())]
    distance = torch.full((len(stack),), torch.inf, dtype=pictures.dtype)
    while len(chosen) < count:
        distance = distance.minimum((pictures - pictures[chosen[-1]]).square().sum(1))
        worth = distance * weights.square()
        worth[chosen] = -1  # equal maps are worth 0, too, and so is the lowest score
        chosen.append(int(worth.argmax()))
    return sorted(chosen)


def _weights(scores: Tensor | None, count: int) -> Tensor:
    """Where each layer stands between the lowest score, 0, and the highest, 1."""
    if scores is None:
        return torch.ones(count)
    means = scores.detach().cpu().double().reshape(count, -1).mean(1)
    finite = means.isfinite()
    if not bool(finite.any()):
        return torch.ones(count)
    low, high = means[finite].aminmax()
    if low == high:
        return finite.double()
    return torch.where(finite, (means - low) / (high - low), 0)


def is_thinning(item: str) -> bool:
    """Whether a text thins out what others select."""
    return item == STAGE_ENDS or item.startswith(_EVERY)


def _comparable(stack: CamStack, layer: int) -> Tensor:
    """One layer's displayed maps at the size of comparison, flat; 0 where they are but noise."""
    maps = stack.normalized(layer, "layer")
    noise = [method in stack.layers[layer].degenerate for method in stack.methods]
    maps[noise] = 0
    maps = plane(maps.flatten(0, 2)[:, None])
    height, width = maps.shape[2:]
    shrunk = F.adaptive_avg_pool2d(maps, (min(height, _COMPARED_SIDE), min(width, _COMPARED_SIDE)))
    return F.interpolate(shrunk, (_COMPARED_SIDE,) * 2, mode="bilinear").flatten()


def _every(step: str) -> int:
    number = step.removeprefix(_EVERY)
    if not (number.isdecimal() and int(number)):
        raise ValueError(f"layers: expected every:N with N of at least 1, got {step!r}")
    return int(number)
