"""Where everything lies on a frame, and the text above the panels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from camfuse import text
from camfuse.ops import PanelKind

CAPTIONS: dict[PanelKind, str] = {
    "source": "photograph",
    "layer": "layer range",
    "global": "global range",
}
_STRONG, _WEAK = 255, 170  # opacity of white text
_SMALLEST, _LARGEST = 16, 8192  # panel sides


@dataclass(frozen=True)
class FrameText:
    """What is written above one frame: a name on the left, details on the right or below."""

    name: str
    details: str = ""


@dataclass(frozen=True)
class Canvas:
    """Geometry of a frame: panels side by side under a header. All lengths are even pixels.

    Attributes:
        kinds: What the panels show, from left to right.
        panel_height: Of every panel.
        panel_width: Of every panel.
        title: A line of the header that all frames share; none if empty.
    """

    kinds: tuple[PanelKind, ...]
    panel_height: int
    panel_width: int
    title: str = ""

    @classmethod
    def fit(
        cls,
        image_size: tuple[int, int],
        kinds: Sequence[PanelKind] = ("source", "layer", "global"),
        *,
        size: int = 448,
        title: str = "",
    ) -> Canvas:
        """A canvas whose panels have the aspect of the photograph.

        Args:
            image_size: ``(H, W)`` of the photograph.
            kinds: What the panels show, from left to right.
            size: Longer side of a panel, 16 to 8192, rounded to even.
            title: A line of the header that all frames share.

        Raises:
            ValueError: If ``size`` or ``kinds`` is not as described.
        """
        if not _SMALLEST <= size <= _LARGEST:
            raise ValueError(f"size: expected {_SMALLEST} to {_LARGEST}, got {size}")
        if not kinds or any(kind not in CAPTIONS for kind in kinds):
            raise ValueError(f"panels: expected some of {', '.join(CAPTIONS)}, got {kinds!r}")
        height, width = image_size
        scale = size / max(height, width)
        return cls(tuple(kinds), _even(height * scale), _even(width * scale), title)

    @property
    def width(self) -> int:
        """Of a frame."""
        return self.gap + len(self.kinds) * (self.panel_width + self.gap)

    @property
    def height(self) -> int:
        """Of a frame."""
        return self.header_height + self.panel_height + self.gap

    @property
    def header_height(self) -> int:
        """Height of the strip of text above the panels."""
        return self.gap + self._lines * self._line_height + self._caption_height

    @property
    def gap(self) -> int:
        """Between panels, and between them and the border."""
        return _even(self._size / 56)

    @property
    def panels(self) -> list[tuple[PanelKind, int, int]]:
        """``(kind, top, left)`` of each panel."""
        return [(kind, self.header_height, self._left(i)) for i, kind in enumerate(self.kinds)]

    @property
    def strips(self) -> list[tuple[int, int]]:
        """``(top, height)`` of the strips of the frame that :meth:`draw` covers."""
        return [(0, self.header_height)]

    def draw(self, texts: Sequence[FrameText]) -> Tensor:
        """The text of several frames ``[N, header_height, width, 2]``, uint8 (grey, alpha)."""
        overlay = np.full((len(texts), self.header_height, self.width, 2), 255, np.uint8)
        for opacity, frame_text in zip(overlay[..., 1], texts, strict=True):
            opacity[:] = self._still_header
            self._draw_header(opacity, frame_text)
        return torch.from_numpy(overlay)

    def _draw_header(self, opacity: np.ndarray, frame_text: FrameText) -> None:
        """Name and details, in ``opacity`` ``[header_height, width]``."""
        size, room, right = self._font_size, self.width - 2 * self.gap, self.width - self.gap
        if self._two_columns:
            details = text.shortened(frame_text.details, size, room // 2)
            text.write(
                opacity, details, size, baseline=self._baseline(0), right=right, strength=_WEAK
            )
            room -= math.ceil(text.length(details + "  ", size))
        else:
            details = text.shortened(frame_text.details, size, room)
            text.write(
                opacity, details, size, baseline=self._baseline(1), left=self.gap, strength=_WEAK
            )
        name = text.shortened(frame_text.name, size, room)
        text.write(opacity, name, size, baseline=self._baseline(0), left=self.gap)

    @cached_property
    def _still_header(self) -> np.ndarray:
        """The part of the header that all frames share, title and captions, as opacity."""
        opacity = np.zeros((self.header_height, self.width), np.uint8)
        title = text.shortened(self.title, self._font_size, self.width - 2 * self.gap)
        baseline = self._baseline(self._lines - 1)
        text.write(
            opacity, title, self._font_size, baseline=baseline, left=self.gap, strength=_WEAK
        )
        baseline = self.header_height - self._caption_height // 3
        for i, kind in enumerate(self.kinds):
            caption = text.shortened(CAPTIONS[kind], self._caption_size, self.panel_width)
            text.write(
                opacity,
                caption,
                self._caption_size,
                baseline=baseline,
                left=self._left(i),
                strength=_WEAK,
            )
        return opacity

    def _baseline(self, line: int) -> int:
        return self.gap + line * self._line_height + self._font_size

    def _left(self, panel: int) -> int:
        return self.gap + panel * (self.panel_width + self.gap)

    @property
    def _size(self) -> int:
        return max(self.panel_height, self.panel_width)

    @property
    def _font_size(self) -> int:
        return max(8, round(self._size / 25))

    @property
    def _caption_size(self) -> int:
        return max(7, round(self._font_size * 0.75))

    @property
    def _line_height(self) -> int:
        return _even(self._font_size * 1.35)

    @property
    def _caption_height(self) -> int:
        return _even(self._caption_size * 1.5)

    @property
    def _two_columns(self) -> bool:
        """Whether a long layer name and its details fit beside each other."""
        return self.width >= 45 * self._font_size

    @property
    def _lines(self) -> int:
        return (1 if self._two_columns else 2) + bool(self.title)


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))
