"""The strip below the panels: how far the video has come, and a score per layer as a curve."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw

from camfuse import text

_SMOOTH = 4  # curves are drawn this much larger, then averaged
_CURVE_INK = (255, 150, 95)  # opacity of the first curve, the second, ...
_TRACK_INK, _DONE_INK, _MARKER_INK, _LABEL_INK = 60, 170, 200, 170


@dataclass(frozen=True)
class Curve:
    """A score of every frame, such as ybROAD.

    Attributes:
        label: What it is called.
        values: One per frame; NaN leaves a gap.
    """

    label: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Footer:
    """A track that fills as the video goes on and, above it, curves with a marker.

    Attributes:
        width: Of the frame, in pixels, even.
        margin: Free space on the left and on the right.
        font_size: Of the labels, in pixels.
        frames: Number of frames.
        curves: One value per frame each; they share one scale.
    """

    width: int
    margin: int
    font_size: int
    frames: int
    curves: Sequence[Curve] = ()

    def __post_init__(self) -> None:
        """Check that every curve has a value per frame."""
        for curve in self.curves:
            if len(curve.values) != self.frames:
                raise ValueError(
                    f"curve {curve.label!r}: expected one value for each of {self.frames} frames, "
                    f"got {len(curve.values)}"
                )

    @property
    def height(self) -> int:
        """Of the strip, in pixels, even."""
        return self._curve_bottom + self._track_height + _even(self.font_size / 2)

    def draw(self, opacity: np.ndarray, frame: int) -> None:
        """Draws one frame's footer into ``opacity`` ``[height, width]``, uint8."""
        np.maximum(opacity, self._still, out=opacity)
        track = slice(self._curve_bottom, self._curve_bottom + self._track_height)
        done = self.margin + round((frame + 1) / self.frames * self._room)
        opacity[track, self.margin : done] = _DONE_INK
        if not self.curves:
            return
        x = round(self._x(frame))
        opacity[self._curve_top : self._curve_bottom, x : x + max(1, self.font_size // 12)] = (
            _MARKER_INK
        )
        said = ", ".join(
            f"{curve.label} {_number(curve.values[frame])}".strip() for curve in self.curves
        )
        text.write(
            opacity,
            text.shortened(said, self.font_size, self._room),
            self.font_size,
            baseline=self.font_size,
            left=self.margin,
            strength=_LABEL_INK,
        )

    @cached_property
    def _still(self) -> np.ndarray:
        """What all frames share: the empty track, and the curves."""
        opacity = np.zeros((self.height, self.width), np.uint8)
        track = slice(self._curve_bottom, self._curve_bottom + self._track_height)
        opacity[track, self.margin : self.width - self.margin] = _TRACK_INK
        if self.curves:
            rows = opacity[self._curve_top : self._curve_bottom]
            rows[:] = self._drawn_curves(*rows.shape)
        return opacity

    def _drawn_curves(self, height: int, width: int) -> np.ndarray:
        """All curves ``[height, width]``; the first lies on top."""
        values = [value for curve in self.curves for value in curve.values if math.isfinite(value)]
        low, high = (min(values), max(values)) if values else (0.0, 0.0)
        span = high - low or 1.0
        large = Image.new("L", (width * _SMOOTH, height * _SMOOTH))
        pen = ImageDraw.Draw(large)
        thick = max(_SMOOTH, round(self.font_size / 8 * _SMOOTH))
        room = large.height - 2 * thick
        for i, curve in reversed(list(enumerate(self.curves))):
            ink = _CURVE_INK[min(i, len(_CURVE_INK) - 1)]
            points = [
                (self._x(frame) * _SMOOTH, thick + (high - value) / span * room)
                if math.isfinite(value)
                else None
                for frame, value in enumerate(curve.values)
            ]
            for here, there in itertools.pairwise([*points, None]):
                if here and there:
                    pen.line((here, there), ink, thick)
                if here:  # also rounds the joints
                    x, y = here
                    pen.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), ink)
        return np.asarray(large.resize((width, height), Image.Resampling.BOX))

    def _x(self, frame: int) -> float:
        return self.margin + (frame + 0.5) / self.frames * self._room

    @property
    def _room(self) -> int:
        return self.width - 2 * self.margin

    @property
    def _track_height(self) -> int:
        return _even(self.font_size / 4)

    @property
    def _curve_top(self) -> int:
        return _even(self.font_size * 1.5)

    @property
    def _curve_bottom(self) -> int:
        return self._curve_top + _even(self.font_size * 4.5) if self.curves else 0


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else ""


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))
