"""What the axes of a tensor stand for: samples, positions of the image, channels.

An axis is a product of factors. The image's height, say, is one factor of 56 with steps of 1/56 of
the height; cut into windows of 7 rows it is a factor of 8 with steps of 1/8 (the windows) and one
of 7 with steps of 1/56 (the rows within them), wherever these two go afterwards. Reshapes split and
join factors, transpositions move them. As long as steps and sizes of a letter's factors fit into
each other and end with the whole, the tensor can be put together as an image again. Functions here
are about shapes alone and know nothing of modules.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

LETTERS = "DHW"
"""Spatial axes; an image of fewer than three has the last of these."""

BATCH, CHANNEL, UNKNOWN = "B", "C", "?"


@dataclass(frozen=True, slots=True)
class Frame:
    """What a letter's steps are parts of, in parts of itself.

    Attributes:
        shift: How far its rows were rolled on.
        first: Where the image begins; what is before it is padding.
        length: How much of it is the image.
    """

    shift: Fraction = Fraction(0)
    first: Fraction = Fraction(0)
    length: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True)
class Factor:
    """A factor of an axis, larger than 1.

    Attributes:
        letter: One of ``B``, ``D``, ``H``, ``W``, or ``C`` for channels and ``?``.
        size: Its size.
        step: From one index to the next, as a part of the whole; 0 for ``C`` and ``?``.
        frame: The whole; None for ``C`` and ``?``.
    """

    letter: str
    size: int
    step: Fraction = Fraction(0)
    frame: Frame | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its letter."""
        return self.size * self.step == 1


@dataclass(frozen=True, slots=True)
class Tokens:
    """Factors between tokens that are no positions: class, distillation and register tokens."""

    before: int
    inner: tuple[Factor, ...]
    after: int

    @property
    def size(self) -> int:
        """Number of tokens in all."""
        return self.before + math.prod(one.size for one in self.inner) + self.after


Axis = tuple[Factor | Tokens, ...]
"""Factors from the slowest to the fastest; none for an axis of 1."""

Axes = tuple[Axis, ...]


def whole(letter: str, size: int) -> Axis:
    """An axis that is all of the batch, the height, ..."""
    return (Factor(letter, size, Fraction(1, size), Frame()),) if size > 1 else ()


def plain(size: int, letter: str = CHANNEL) -> Axis:
    """An axis of channels, or an unknown one."""
    return (Factor(letter, size),) if size > 1 else ()


def unknown(shape: Sequence[int]) -> Axes:
    """Nothing is known of any axis."""
    return tuple(plain(size, UNKNOWN) for size in shape)


def located(axis: Axis) -> bool:
    """Whether an axis tells samples or positions apart."""
    return any(isinstance(one, Tokens) or one.frame is not None for one in axis)


def is_unknown(axis: Axis) -> bool:
    """Whether anything of an axis is unknown."""
    return any(isinstance(one, Factor) and one.letter == UNKNOWN for one in axis)


def viewed(axes: Axes, shape: Sequence[int]) -> Axes:
    """After a reshape; unknown where it cuts across factors."""
    left = [one for axis in reversed(axes) for one in reversed(axis)]
    found = []
    for size in shape:
        taken: list[Factor | Tokens] = []
        while size > 1:
            if not left:
                return unknown(shape)
            one = left.pop()
            if size % one.size == 0:
                taken.append(one)
                size //= one.size
            elif isinstance(one, Factor) and one.size % size == 0:
                rest = one.size // size
                left.append(replace(one, size=rest))
                taken.append(replace(one, size=size, step=one.step * rest))
                size = 1
            else:
                return unknown(shape)
        found.append(_joined(taken))
    return tuple(found)


def _joined(factors: Sequence[Factor | Tokens]) -> Axis:
    """Neighbours that are one factor in truth become one."""
    found: list[Factor | Tokens] = []
    for one in factors:
        last = found[-1] if found else None
        if (
            isinstance(one, Factor)
            and isinstance(last, Factor)
            and (last.letter, last.frame) == (one.letter, one.frame)
            and last.step == one.step * one.size
        ):
            found[-1] = replace(one, size=last.size * one.size)
        else:
            found.append(one)
    return tuple(found)


def combined(operands: Sequence[tuple[Axes, Sequence[int]]], shape: Sequence[int]) -> Axes:
    """After an element-wise operation that broadcasts ``operands`` (with their shapes).

    What is known of one holds for all: a residual tells what was added to it. Where two disagree,
    the one that holds every position once is believed.
    """
    found = []
    for i, size in enumerate(shape):
        place = i - len(shape)
        here = [
            (axes[place], tuple(of) == tuple(shape))
            for axes, of in operands
            if len(of) >= -place and of[place] == size
        ]
        sure = {axis for axis, is_whole in here if is_whole and located(axis)}
        sure = sure or {axis for axis, _ in here if located(axis)}
        if len(sure) > 1:
            sound = {axes for axes, of in operands if tuple(of) == tuple(shape) and complete(axes)}
            return sound.pop() if len(sound) == 1 else unknown(shape)
        if sure:
            found.append(sure.pop())
        else:
            found.append(plain(size, UNKNOWN if any(is_unknown(a) for a, _ in here) else CHANNEL))
    return tuple(found)


def frame_of(factors: Sequence[Factor]) -> Frame | None:
    """The frame that these factors, slowest first, make up exactly; None if they do not."""
    rest = Fraction(1)
    for one in factors:
        if one.step * one.size != rest or one.frame != factors[0].frame:
            return None
        rest = one.step
    return factors[0].frame if factors else Frame()


def complete(axes: Axes) -> bool:
    """Whether every sample and position is there exactly once."""
    factors = list(_flat(axes))
    by_letter = {
        letter: sorted((f for f in factors if f.letter == letter), key=lambda f: -f.step)
        for letter in (BATCH, *LETTERS)
    }
    spatial = any(by_letter[letter] for letter in LETTERS)
    return spatial and all(frame_of(own) is not None for own in by_letter.values())


def sliced(axes: Axes, place: int, start: int, stop: int, step: int) -> Axes:
    """After taking a part of one axis; unknown where it is a part of the image."""
    axis = axes[place]
    count = max(0, -(-(stop - start) // step))
    size = math.prod(one.size for one in axis)
    if count == size and step == 1:
        return axes
    part = _part(axis, start, stop, step, size)
    if part is None:
        shape = [math.prod(one.size for one in axis) for axis in axes]
        shape[place] = count
        return unknown(shape)
    return (*axes[:place], part, *axes[place + 1 :])


def _part(axis: Axis, start: int, stop: int, step: int, size: int) -> Axis | None:
    count = max(0, -(-(stop - start) // step))
    if not located(axis):
        return plain(count, UNKNOWN if is_unknown(axis) else CHANNEL)
    if len(axis) != 1:
        return None
    (one,) = axis
    if isinstance(one, Tokens):
        end = one.size - one.after
        if step == 1 and (stop <= one.before or start >= end):
            return plain(count)
        if step == 1 and start <= one.before and stop >= end:
            before, after = one.before - start, stop - end
            return (replace(one, before=before, after=after),) if before + after else one.inner
        return None
    if one.letter == BATCH or one.frame is None or not one.is_whole:
        return None
    if step > 1:  # every so many rows
        if not start < step or count != -(-(size - start) // step):
            return None
        return whole(one.letter, count) if one.frame == Frame() else None
    undone = (start * one.step, count * one.step) == (one.frame.first, one.frame.length)
    # Rows cut from the border leave an image as a convolution without padding does.
    return whole(one.letter, count) if undone or size - count <= 1 + size // 8 else None


def without(axes: Axes, places: Iterable[int], keep: bool, *, chosen: bool = False) -> Axes:
    """After reducing some axes, or choosing one index of them, ``keep`` those as axes of 1."""
    gone = {place % len(axes) for place in places}
    if chosen and any(not _subsamples(axes, axes[place]) for place in gone):
        shape = [math.prod(one.size for one in axis) for axis in axes]
        return unknown(
            [1 if i in gone else n for i, n in enumerate(shape) if keep or i not in gone]
        )
    kept = (() if i in gone else axis for i, axis in enumerate(axes) if keep or i not in gone)
    return tuple(kept)


def _subsamples(axes: Axes, axis: Axis) -> bool:
    """Whether one index of this axis leaves every so many positions, or is no position."""
    for one in axis:
        if isinstance(one, Factor) and one.frame is not None:
            steps = [other.step for other in _flat(axes) if other.letter == one.letter]
            if one.letter == BATCH or one.step != min(steps) or one.is_whole:
                return False
    return True


def concatenated(pieces: Sequence[tuple[Axes, Sequence[int]]], place: int) -> Axes:
    """After joining tensors (their axes and shapes) along one axis."""
    shape = list(pieces[0][1])
    shape[place] = sum(of[place] for _, of in pieces)
    # Whatever is joined, the other axes agree.
    ones = [
        ((*axes[:place], (), *axes[place + 1 :]), (*of[:place], 1, *of[place + 1 :]))
        for axes, of in pieces
    ]
    rest = list(combined(ones, [*shape[:place], 1, *shape[place + 1 :]]))
    positions = [i for i, (axes, _) in enumerate(pieces) if located(axes[place])]
    if not positions:
        blind = any(is_unknown(axes[place]) for axes, _ in pieces)
        rest[place] = plain(shape[place], UNKNOWN if blind else CHANNEL)
        return tuple(rest)
    if len(positions) > 1:
        return unknown(shape)
    (i,) = positions
    axis = pieces[i][0][place]
    before = sum(of[place] for _, of in pieces[:i])
    after = sum(of[place] for _, of in pieces[i + 1 :])
    if (tokens := _among_tokens(before, axis, after)) is None:
        return unknown(shape)
    rest[place] = tokens
    return tuple(rest)


def _among_tokens(before: int, axis: Axis, after: int) -> Axis | None:
    """An axis of positions with other tokens put before and after."""
    if len(axis) == 1 and isinstance(axis[0], Tokens):
        return (Tokens(axis[0].before + before, axis[0].inner, axis[0].after + after),)
    inner = tuple(one for one in axis if isinstance(one, Factor) and one.letter in LETTERS)
    return (Tokens(before, inner, after),) if len(inner) == len(axis) else None


def rolled(axes: Axes, place: int, shift: int) -> Axes:
    """After rolling one axis on; unknown unless it is all of one letter."""
    axis = axes[place]
    if not located(axis):
        return axes
    one = axis[0]
    if len(axis) > 1 or isinstance(one, Tokens) or one.frame is None:
        return unknown([math.prod(f.size for f in axis) for axis in axes])
    if one.letter == BATCH or not one.is_whole:
        return unknown([math.prod(f.size for f in axis) for axis in axes])
    frame = replace(one.frame, shift=(one.frame.shift + shift * one.step) % 1)
    return (*axes[:place], (replace(one, frame=frame),), *axes[place + 1 :])


def padded(axes: Axes, pads: Sequence[tuple[int, int]]) -> Axes:
    """After padding each axis before and behind."""
    found = []
    for axis, (before, behind) in zip(axes, pads, strict=True):
        size = math.prod(one.size for one in axis)
        count = size + before + behind
        if not (before or behind):
            found.append(axis)
        elif not located(axis):
            found.append(plain(count, UNKNOWN if is_unknown(axis) else CHANNEL))
        else:
            one = axis[0]
            frame = one.frame if isinstance(one, Factor) else None
            if (
                len(axis) == 1
                and isinstance(one, Factor)
                and one.letter != BATCH
                and frame is not None
                and one.is_whole
                and not frame.shift
            ):
                first, length = before + frame.first * size, frame.length * size
                frame = Frame(first=Fraction(first, count), length=Fraction(length, count))
                found.append((replace(one, size=count, step=Fraction(1, count), frame=frame),))
            elif min(before, behind) >= 0 and (tokens := _among_tokens(before, axis, behind)):
                found.append(tokens)
            else:
                shape = [math.prod(f.size for f in axis) for axis in axes]
                return unknown([n + a + b for n, (a, b) in zip(shape, pads, strict=True)])
    return tuple(found)


def resampled(axes: Axes, shape: Sequence[int], rank: int, letters: str) -> Axes:
    """After a convolution or pooling of the last ``rank`` axes to ``shape``, channels left alone.

    Args:
        axes: As they were.
        shape: The new shape.
        rank: How many axes are resampled.
        letters: What an axis of 1 becomes if it grows.
    """
    found = list(axes[:-rank])
    for place, (axis, size) in enumerate(zip(axes[-rank:], shape[-rank:], strict=True)):
        one = axis[0] if axis else None
        if math.prod(f.size for f in axis) == size:
            found.append(axis)
        elif one is None and len(letters) == rank:
            found.append(whole(letters[place], size))
        elif not located(axis):
            found.append(plain(size, CHANNEL if axis and not is_unknown(axis) else UNKNOWN))
        elif not isinstance(one, Factor) or len(axis) > 1 or one.letter == BATCH or not one.frame:
            return unknown(shape)
        elif one.is_whole and not one.frame.shift:
            found.append(whole(one.letter, size))
        elif size and one.size % size == 0:  # within windows
            step = one.step * (one.size // size)
            found.append((replace(one, size=size, step=step),) if size > 1 else ())
        else:
            return unknown(shape)
    return tuple(found)


def patches(axes: Axes, size: Sequence[int], count: Sequence[int], *, apart: bool) -> Axes | None:
    """After cutting an image ``[B, C, H, W]`` into patches ``[B, C x size, count]``.

    Args:
        axes: The image's.
        size: Rows and columns of a patch.
        count: How many patches there are below and beside each other.
        apart: Whether the patches lie side by side and cover the image; else they overlap, and
            their pixels are channels.
    """
    heads, tails = list[Factor | Tokens](), list[Factor | Tokens]()
    for axis, n, m in zip(axes[2:], size, count, strict=True):
        if len(axis) != 1 or isinstance(axis[0], Tokens) or axis[0].frame is None:
            return None
        if not apart:
            heads += plain(n)
            tails += whole(axis[0].letter, m)
        else:
            outer, inner = viewed((axis,), (m, n))
            heads, tails = [*heads, *inner], [*tails, *outer]
    return (axes[0], (*axes[1], *heads), tuple(tails))


def _flat(axes: Axes) -> Iterator[Factor]:
    for axis in axes:
        for one in axis:
            if isinstance(one, Tokens):
                yield from one.inner
            else:
                yield one
