"""Where everything lies on a frame, and the text above the panels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from camfuse import text
from camfuse.footer import Curve, Footer
from camfuse.ops import PanelKind

CAPTIONS: dict[PanelKind, str] = {
    "source": "photograph",
    "layer": "layer range",
    "global": "global range",
}
_STRONG, _WEAK = 255, 170  # opacity of white text
_SMALLEST, _LARGEST = 16, 8192  # longer side of a panel


@dataclass(frozen=True)
class FrameText:
    """A line above one frame: a name on the left, details on the right or below."""

    name: str
    details: str = ""


@dataclass(frozen=True)
class Canvas:
    """Geometry of a frame: panels under a header, above a footer. All lengths are even pixels.

    One map's panels lie side by side. Several maps, of methods, targets or models to compare, have
    a column each, and a row for each way to show them; the photograph comes first::

        photograph | layer | global          photograph | layer a  | layer b
                                                        | global a | global b

    Attributes:
        kinds: What the panels show.
        panel_height: Of every panel.
        panel_width: Of every panel.
        labels: What the compared maps are called, one each.
        title: A line of the header that all frames share; none if empty.
        headings: Lines of the header that each frame has of its own.
        frames: Number of frames; the footer's track needs more than one.
        curves: Scores of every frame, drawn in the footer.
    """

    kinds: tuple[PanelKind, ...]
    panel_height: int
    panel_width: int
    labels: tuple[str, ...] = ("",)
    title: str = ""
    headings: int = 1
    frames: int = 1
    curves: tuple[Curve, ...] = ()

    @classmethod
    def fit(
        cls,
        image_size: tuple[int, int],
        kinds: Sequence[PanelKind] = ("source", "layer", "global"),
        *,
        size: int = 448,
        labels: Sequence[str] = ("",),
        title: str = "",
        headings: int = 1,
        frames: int = 1,
        curves: Sequence[Curve] = (),
    ) -> Canvas:
        """A canvas whose panels have the aspect of the photograph.

        Args:
            image_size: ``(H, W)`` of the photograph.
            kinds: What the panels show.
            size: Longer side of a panel, 16 to 8192, rounded to even.
            labels: What the compared maps are called, one each.
            title: A line of the header that all frames share.
            headings: Lines of the header that each frame has of its own.
            frames: Number of frames.
            curves: Scores of every frame.

        Raises:
            ValueError: If ``size`` or ``kinds`` is not as described.
        """
        if not _SMALLEST <= size <= _LARGEST:
            raise ValueError(f"size: expected {_SMALLEST} to {_LARGEST}, got {size}")
        if not kinds or any(kind not in CAPTIONS for kind in kinds):
            raise ValueError(f"panels: expected some of {', '.join(CAPTIONS)}, got {kinds!r}")
        height, width = image_size
        scale = size / max(height, width)
        return cls(
            kinds=tuple(kinds),
            panel_height=_even(height * scale),
            panel_width=_even(width * scale),
            labels=tuple(labels),
            title=title,
            headings=headings,
            frames=frames,
            curves=tuple(curves),
        )

    @property
    def width(self) -> int:
        """Of a frame."""
        columns = 1 + max(column for _, _, _, column in self._cells)
        # Encoders take no less; only panels of a photograph a few pixels wide need it.
        return max(_SMALLEST, self.gap + columns * (self.panel_width + self.gap))

    @property
    def height(self) -> int:
        """Of a frame."""
        return self._footer_top + (self._footer.height if self._footer else 0)

    @property
    def header_height(self) -> int:
        """Height of the strip of text above the first row of panels."""
        return self.gap + self._lines * self._line_height + self._caption_height

    @property
    def gap(self) -> int:
        """Between panels, and between them and the border."""
        return _even(self._size / 56)

    @property
    def panels(self) -> list[tuple[PanelKind, int, int, int]]:
        """``(kind, map, top, left)`` of each panel."""
        return [
            (kind, shown, self._top(row), self._left(column))
            for kind, shown, row, column in self._cells
        ]

    @property
    def strips(self) -> list[tuple[int, int]]:
        """``(top, height)`` of the strips of the frame that :meth:`draw` covers."""
        strips = [(0, self.header_height)]
        for row in range(1, self._rows):
            strips.append((self._top(row) - self._caption_height, self._caption_height))
        if self._footer:
            strips.append((self._footer_top, self._footer.height))
        return strips

    def draw(self, texts: Sequence[Sequence[FrameText]], start: int = 0) -> Tensor:
        """The text of several frames, strip after strip.

        Args:
            texts: Each frame's ``headings`` lines.
            start: Position of the first of these frames in the video.

        Returns:
            ``[N, rows, width, 2]``, uint8 (grey, alpha), the strips' rows one after another.
        """
        rows = sum(height for _, height in self.strips)
        overlay = np.full((len(texts), rows, self.width, 2), 255, np.uint8)
        for i, (opacity, lines) in enumerate(zip(overlay[..., 1], texts, strict=True)):
            opacity[:] = self._still
            for line, one in enumerate(lines):
                self._draw_heading(opacity, one, line * self._lines_per_heading)
            if self._footer:
                self._footer.draw(opacity[-self._footer.height :], start + i)
        return torch.from_numpy(overlay)

    def _draw_heading(self, opacity: np.ndarray, heading: FrameText, line: int) -> None:
        """Name and details, beginning on a line of ``opacity`` ``[rows, width]``."""
        size, room, right = self._font_size, self.width - 2 * self.gap, self.width - self.gap
        if self._two_columns:
            details = text.shortened(heading.details, size, room // 2)
            text.write(
                opacity, details, size, baseline=self._baseline(line), right=right, strength=_WEAK
            )
            room -= math.ceil(text.length(details + "  ", size))
        else:
            details = text.shortened(heading.details, size, room)
            text.write(
                opacity,
                details,
                size,
                baseline=self._baseline(line + 1),
                left=self.gap,
                strength=_WEAK,
            )
        name = text.shortened(heading.name, size, room)
        text.write(opacity, name, size, baseline=self._baseline(line), left=self.gap)

    @cached_property
    def _still(self) -> np.ndarray:
        """What all frames share, title and captions, as opacity."""
        rows = sum(height for _, height in self.strips)
        opacity = np.zeros((rows, self.width), np.uint8)
        title = text.shortened(self.title, self._font_size, self.width - 2 * self.gap)
        baseline = self._baseline(self._lines - 1)
        text.write(
            opacity, title, self._font_size, baseline=baseline, left=self.gap, strength=_WEAK
        )
        for kind, shown, row, column in self._cells:
            label = "" if kind == "source" else self.labels[shown]
            caption = f"{label} · {CAPTIONS[kind]}" if label else CAPTIONS[kind]
            bottom = self.header_height + row * self._caption_height
            text.write(
                opacity,
                text.shortened(caption, self._caption_size, self.panel_width),
                self._caption_size,
                baseline=bottom - self._caption_height // 3,
                left=self._left(column),
                strength=_WEAK,
            )
        return opacity

    @cached_property
    def _cells(self) -> list[tuple[PanelKind, int, int, int]]:
        """``(kind, map, row, column)`` of each panel."""
        if len(self.labels) == 1:
            return [(kind, 0, 0, column) for column, kind in enumerate(self.kinds)]
        return list(self._compared())

    def _compared(self) -> Iterator[tuple[PanelKind, int, int, int]]:
        sources = [kind for kind in self.kinds if kind == "source"]
        for column, source in enumerate(sources):
            yield source, 0, 0, column
        ways = [kind for kind in self.kinds if kind != "source"]
        for row, kind in enumerate(ways):
            for shown in range(len(self.labels)):
                yield kind, shown, row, len(sources) + shown

    @cached_property
    def _footer(self) -> Footer | None:
        if self.frames < 2 and not self.curves:
            return None
        return Footer(self.width, self.gap, self._caption_size, self.frames, self.curves)

    @property
    def _footer_top(self) -> int:
        return self._top(self._rows - 1) + self.panel_height + self.gap

    @property
    def _rows(self) -> int:
        return 1 + max(row for _, _, row, _ in self._cells)

    def _top(self, row: int) -> int:
        return self.header_height + row * (self.panel_height + self.gap + self._caption_height)

    def _left(self, column: int) -> int:
        return self.gap + column * (self.panel_width + self.gap)

    def _baseline(self, line: int) -> int:
        return self.gap + line * self._line_height + self._font_size

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
    def _lines_per_heading(self) -> int:
        return 1 if self._two_columns else 2

    @property
    def _lines(self) -> int:
        return self.headings * self._lines_per_heading + bool(self.title)


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))
