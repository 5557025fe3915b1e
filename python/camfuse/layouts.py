"""How a module's output becomes ``[B, C, *grid]``, from what its axes stand for.

Outputs are not always ``[B, C, h, w]``: ConvNeXt and Swin carry channels last inside their blocks,
vision transformers tokens, windowed attention windows. An output is folded only if every sample,
row and column of it is there exactly once; otherwise the layer is skipped with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from camfuse.axes import BATCH, CHANNEL, UNKNOWN, Axes, Factor, Tokens, frame_of

UNDECIDED = "layout unknown, pass reshape="
MIXED = "no spatial extent: it has no axis of positions"
RELATED = "relates positions to positions, as attention weights do; pass reshape="


@dataclass(frozen=True)
class Layout:
    """The way from one output to ``[B, C, *grid]``.

    Attributes:
        batch: B.
        channels: C.
        grid: Rows and columns; one number, or three, where the model's input is no image.
        split: The output's shape with an axis per factor.
        tokens: Which axis then holds other tokens too, where positions begin and how many they are.
        inner: The shape after that, again with an axis per factor.
        order: How the factors go to batch, channels and grid; None if they are there.
        frame: The grid with its padding.
        shifts: How far each axis of the grid was rolled on.
        crops: What part of each axis of the grid belongs to the image.
    """

    batch: int
    channels: int
    grid: tuple[int, ...]
    split: tuple[int, ...]
    tokens: tuple[int, int, int] | None
    inner: tuple[int, ...]
    order: tuple[int, ...] | None
    frame: tuple[int, ...]
    shifts: tuple[int, ...]
    crops: tuple[tuple[int, int], ...]

    def spatial(self, tensor: Tensor) -> Tensor:
        """``[B, C, rows, columns]`` of an output or its gradient, a view where one is possible."""
        if self.order is not None:
            tensor = tensor.reshape(self.split)
            if self.tokens is not None:
                tensor = tensor.narrow(*self.tokens).reshape(self.inner)
            tensor = tensor.permute(self.order)
            tensor = tensor.reshape(self.batch, self.channels, *self.frame)
            if any(self.shifts):
                places = tuple(range(2, tensor.ndim))
                tensor = torch.roll(tensor, [-shift for shift in self.shifts], places)
            for place, (first, length) in enumerate(self.crops, 2):
                tensor = tensor.narrow(place, first, length)
        return plane(tensor)


def plane(tensor: Tensor) -> Tensor:
    """``[B, C, rows, columns]`` of ``[B, C, *grid]``, which is what native code reads.

    One axis becomes the columns of one row, of three the first two become the rows.
    """
    if tensor.ndim == 3:
        return tensor.unsqueeze(2)
    return tensor.flatten(2, 3) if tensor.ndim == 5 else tensor


def layout_of(
    axes: Axes | None, shape: Sequence[int], batch: int, letters: str = "HW"
) -> Layout | str:
    """How an output of ``shape`` is folded, or why it cannot be.

    Args:
        axes: What its axes stand for; None if it was made of parameters alone.
        shape: Its shape.
        batch: Number of samples.
        letters: The spatial axes of the model's input.
    """
    if axes is None:
        return "made of parameters alone, the same for every image"
    outer = [one for axis in axes for one in axis]
    mixed = [one for one in outer if isinstance(one, Tokens)]
    if len(mixed) > 1:
        return RELATED
    tokens, factors = None, list[Factor]()
    for place, one in enumerate(outer):
        if isinstance(one, Tokens):
            tokens = (place, one.before, one.size - one.before - one.after)
            factors += one.inner
        else:
            factors.append(one)
    if any(one.letter == UNKNOWN for one in factors):
        return UNDECIDED
    order, sizes, grids = list[int](), list[int](), list[_Extent]()
    for letter in (BATCH, CHANNEL, *letters):
        places = [i for i, one in enumerate(factors) if one.letter == letter]
        if letter != CHANNEL:
            places.sort(key=lambda i: -factors[i].step)
            own = [factors[i] for i in places]
            if len({one.step for one in own}) < len(own):
                return RELATED
            if (extent := _extent(own)) is None:
                return f"holds a part of the {'batch' if letter == BATCH else 'image'} only"
            grids.append(extent)
        sizes.append(math.prod(factors[i].size for i in places))
        order += places
    if len(order) < len(factors):
        return UNDECIDED
    if sizes[0] != batch:
        return "has no axis of samples"
    del grids[0]
    channels, frame = sizes[1], sizes[2:]
    there = tokens is None and order == sorted(order) and not any(of.shift for of in grids)
    there = there and tuple(shape) == (batch, channels, *frame)
    # An image that was padded is shown so; windows and tokens are put together without padding.
    crops = tuple(
        (0, total) if there else (of.first, of.length)
        for of, total in zip(grids, frame, strict=True)
    )
    grid = tuple(length for _, length in crops)
    if math.prod(grid) == 1 and len(shape) != len(letters) + 2:
        return "no spatial extent" if len(shape) <= 2 else MIXED
    return Layout(
        batch=batch,
        channels=channels,
        grid=grid,
        split=tuple(one.size for one in outer),
        tokens=tokens,
        inner=tuple(one.size for one in factors),
        order=None if there else tuple(order),
        frame=tuple(frame),
        shifts=tuple(of.shift for of in grids),
        crops=crops,
    )


@dataclass(frozen=True)
class _Extent:
    """A :class:`camfuse.axes.Frame` in rows."""

    shift: int
    first: int
    length: int


def _extent(factors: Sequence[Factor]) -> _Extent | None:
    """Of factors of one letter, slowest first; None if something is missing."""
    if (frame := frame_of(factors)) is None:
        return None
    total = math.prod(one.size for one in factors)
    rows = [part * total for part in (frame.shift, frame.first, frame.length)]
    return _Extent(*map(int, rows)) if all(n.denominator == 1 for n in rows) else None
