"""Lines of text as opacity, set from cached pieces in Pillow's bundled font.

A video repeats a few dozen characters on every frame; Pillow would load and hint each of them anew.
It also repeats most words, and most parts of layers' names.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ELLIPSIS = "..."


# Pieces end with these; "layer3.12.conv2" shares "layer3." with its neighbors.
_PIECE = re.compile(r"[^ ./]*[ ./]|[^ ./]+")


@dataclass(frozen=True, eq=False)
class _Ink:
    """What is set: opacity ``[h, w]``, uint8, its corner relative to the pen, and the advance."""

    opacity: np.ndarray
    top: int
    left: int
    advance: float


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # what load_default(size) documents
    return font


@cache
def _glyph(size: int, character: str, strength: int = 255) -> _Ink:
    font = _font(size)
    left, top, right, bottom = map(int, font.getbbox(character, anchor="ls"))
    image = Image.new("L", (max(right - left, 0), max(bottom - top, 0)))
    ImageDraw.Draw(image).text((-left, -top), character, strength, font, anchor="ls")
    return _Ink(np.asarray(image), top, left, font.getlength(character))


@lru_cache(maxsize=4096)
def _advance(size: int, characters: str) -> float:
    return sum(_glyph(size, character).advance for character in characters)


@lru_cache(maxsize=4096)
def _piece(size: int, characters: str, strength: int) -> _Ink:
    """Characters in a row, each at the whole pixel that is nearest."""
    glyphs = [_glyph(size, character, strength) for character in characters]
    *pens, advance = itertools.accumulate((one.advance for one in glyphs), initial=0.0)
    shown = [
        (one.opacity, one.top, round(pen) + one.left)
        for one, pen in zip(glyphs, pens, strict=True)
        if one.opacity.size
    ]
    top = min((y for _, y, _ in shown), default=0)
    left = min((x for _, _, x in shown), default=0)
    bottom = max((y + ink.shape[0] for ink, y, _ in shown), default=0)
    right = max((x + ink.shape[1] for ink, _, x in shown), default=0)
    opacity = np.zeros((bottom - top, right - left), np.uint8)
    for ink, y, x in shown:
        _lay(opacity, ink, y - top, x - left)
    return _Ink(opacity, top, left, advance)


def _lay(opacity: np.ndarray, ink: np.ndarray, y: int, x: int) -> None:
    """Puts ``ink`` into ``opacity``, its corner there; what lies outside is cut off."""
    (height, width), (h, w) = opacity.shape, ink.shape
    if y < 0 or x < 0 or y + h > height or x + w > width:
        ink = ink[max(-y, 0) : max(height - y, 0), max(-x, 0) : max(width - x, 0)]
        y, x, (h, w) = max(y, 0), max(x, 0), ink.shape
    target = opacity[y : y + h, x : x + w]
    np.maximum(target, ink, out=target)


def length(text: str, size: int) -> float:
    """Width of ``text`` on one line, in pixels."""
    return sum(_advance(size, piece) for piece in _PIECE.findall(text))


def write(
    opacity: np.ndarray,
    text: str,
    size: int,
    *,
    baseline: int,
    left: int = 0,
    right: int | None = None,
    strength: int = 255,
) -> None:
    """Writes one line into ``opacity`` ``[H, W]`` of uint8; what does not fit is cut off.

    Args:
        opacity: 0 where the picture below shows, 255 where the text covers it.
        text: The line.
        size: Of the font, in pixels.
        baseline: Row on which the letters stand.
        left: Column where the line begins.
        right: Column where it ends instead, if given.
        strength: Opacity of the text, 0 to 255.
    """
    pen = float(left) if right is None else right - length(text, size)
    for piece in _PIECE.findall(text):
        ink = _piece(size, piece, strength)
        _lay(opacity, ink.opacity, baseline + ink.top, round(pen) + ink.left)
        pen += ink.advance


def shortened(text: str, size: int, room: float) -> str:
    """``text`` on one line, its middle left out as far as ``room`` pixels demand."""
    text = " ".join(text.split())
    if length(text, size) <= room:
        return text
    return _longest(
        lambda kept: text[: (kept + 1) // 2] + ELLIPSIS + text[len(text) - kept // 2 :],
        len(text),
        lambda candidate: length(candidate, size) <= room,
    )


def _longest(candidate: Callable[[int], str], limit: int, fits: Callable[[str], bool]) -> str:
    """The last of ``candidate(1), candidate(2), ...`` that fits, by bisection; else empty."""
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(candidate(middle)) else (low, middle)
    return candidate(low) if low else ""
