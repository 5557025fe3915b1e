"""Still pictures: one layer's map over the photograph, and a contact sheet of many."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from dataclasses import dataclass
from typing import get_args

import numpy as np
from PIL import Image

from camfuse import text
from camfuse.canvas import Canvas
from camfuse.checks import expect
from camfuse.colormaps import Colormap, color_table
from camfuse.images import ImageSource, read_image
from camfuse.render import Frames, render
from camfuse.stack import CamStack, Normalization
from camfuse.views import check_pictures, choose_views, title_of

_BACKGROUND, _STRONG, _WEAK = 16, 255, 170  # grey, and opacity of white text
_SMALLEST, _LARGEST = 16, 8192  # longer side that a canvas allows
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def check_look(
    *, normalize: str, size: int | None, colormap: Colormap, columns: int | None = None
) -> None:
    """Checks what pictures are to look like; there need not be any maps yet.

    Raises:
        TypeError: If an argument of :func:`still` or :func:`sheet` is of the wrong type.
        ValueError: If one does not fit.
    """
    if normalize not in get_args(Normalization):
        raise ValueError(f"normalize: expected 'layer' or 'global', got {normalize!r}")
    if size is not None:
        expect("size", size, int)
        Canvas.fit((1, 1), size=size)
    color_table(colormap)
    if columns is not None:
        expect("columns", columns, int)
        if columns < 1:
            raise ValueError(f"columns: expected at least 1, got {columns}")


def still(
    stack: CamStack,
    image: ImageSource,
    layer: str | int,
    *,
    normalize: Normalization = "layer",
    size: int | None = None,
    colormap: Colormap = "turbo",
    blend: float = 0.5,
    method: str | None = None,
    target: int | None = None,
    sample: int = 0,
) -> Image.Image:
    """One layer's map over the photograph, without any text.

    Args:
        stack: The maps.
        image: The photograph: PIL, array or path; see :func:`camfuse.images.read_image`.
        layer: Name or position.
        normalize: Whether the map's own range is shown, or that over all layers.
        size: Longer side of the picture in pixels, 16 to 8192; by default the photograph's, as far
            as it lies within.
        colormap: The colour map; see :func:`camfuse.render`.
        blend: Weight of the colour map over the photograph, in [0, 1].
        method: Which method, if the stack holds several.
        target: Which target, by position, if the stack holds several.
        sample: Which image of the batch.

    Returns:
        An RGB picture; its sides are even.

    Raises:
        KeyError: If the stack has no such layer; the message says why.
        TypeError: If another argument is of the wrong type.
        ValueError: If it does not fit, or several methods or targets are left.
    """
    check_look(normalize=normalize, size=size, colormap=colormap)
    check_pictures([stack])
    photograph = read_image(image)
    if size is None:
        size = min(max(*photograph.size, _SMALLEST), _LARGEST)
    chosen = stack.select(layers=[stack.names[stack.position(layer)]])
    frames = render(
        chosen,
        photograph,
        panels=[normalize],
        size=size,
        colormap=colormap,
        blend=blend,
        method=method,
        target=target,
        sample=sample,
    )
    if len(frames.canvas.panels) != 1:
        raise ValueError(
            f"method, target: expected one map, got those of {', '.join(stack.methods)} "
            f"for {stack.axes[1]} targets"
        )
    return Image.fromarray(_panel(frames, 0).copy())


@dataclass(frozen=True, eq=False)
class Sheet:
    """A contact sheet: the photograph, then every layer's map with its name.

    Attributes:
        title: The line above.
        tiles: Pictures of equal size ``[h, w, 3]``, uint8.
        captions: Two lines below each picture.
        columns: Pictures side by side.
    """

    title: str
    tiles: tuple[np.ndarray, ...]
    captions: tuple[tuple[str, str], ...]
    columns: int

    @property
    def size(self) -> tuple[int, int]:
        """``(width, height)`` in pixels."""
        rows = math.ceil(len(self.tiles) / self.columns)
        return (
            self._gap + self.columns * self._step[0],
            2 * self._gap + self._line + rows * self._step[1],
        )

    def to_image(self) -> Image.Image:
        """The sheet as an RGB picture."""
        width, height = self.size
        canvas = np.full((height, width, 3), _BACKGROUND, np.uint8)
        opacity = np.zeros((height, width), np.uint8)
        for words, x, y, room, strength in self._lines():
            line = text.shortened(words, self._font, room)
            text.write(opacity, line, self._font, baseline=y, left=x, strength=strength)
        ink = opacity[..., None] / np.float32(255)
        canvas = np.rint(canvas * (1 - ink) + 255 * ink).astype(np.uint8)
        for tile, (x, y) in zip(self.tiles, self._places(), strict=True):
            canvas[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        return Image.fromarray(canvas)

    def to_svg(self) -> str:
        """The sheet as an SVG document: pictures embedded as PNG, text that can be searched."""
        width, height = self.size
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" font-size="{self._font}">',
            f'<rect width="100%" height="100%" fill="#{3 * f"{_BACKGROUND:02x}"}"/>',
        ]
        for words, x, y, room, strength in self._lines():
            words = _NOT_XML.sub(" ", words)
            line = html.escape(text.shortened(words, self._font, room))
            full = html.escape(" ".join(words.split()))
            parts.append(
                f'<text x="{x}" y="{y}" fill="white" fill-opacity="{strength / 255:.2f}">'
                f"<title>{full}</title>{line}</text>"
            )
        for tile, (x, y) in zip(self.tiles, self._places(), strict=True):
            h, w, _ = tile.shape
            parts.append(
                f'<image x="{x}" y="{y}" width="{w}" height="{h}" href="{_data_uri(tile)}"/>'
            )
        return "\n".join([*parts, "</svg>\n"])

    def _lines(self) -> list[tuple[str, int, int, int, int]]:
        """``(text, x, baseline, room, opacity)`` of every line."""
        tile_width = self.tiles[0].shape[1]
        title_room = self.size[0] - 2 * self._gap
        lines = [(self.title, self._gap, self._gap + self._font, title_room, _STRONG)]
        for (name, details), (x, y) in zip(self.captions, self._places(), strict=True):
            below = y + self.tiles[0].shape[0]
            lines.append((name, x, below + self._line, tile_width, _STRONG))
            lines.append((details, x, below + 2 * self._line, tile_width, _WEAK))
        return lines

    def _places(self) -> list[tuple[int, int]]:
        """``(x, y)`` of each picture."""
        top = 2 * self._gap + self._line
        return [
            (
                self._gap + i % self.columns * self._step[0],
                top + i // self.columns * self._step[1],
            )
            for i in range(len(self.tiles))
        ]

    @property
    def _step(self) -> tuple[int, int]:
        height, width, _ = self.tiles[0].shape
        return width + self._gap, height + 2 * self._line + 2 * self._gap

    @property
    def _font(self) -> int:
        side: int = max(self.tiles[0].shape)
        return max(9, round(side / 15))

    @property
    def _line(self) -> int:
        return round(self._font * 1.3)

    @property
    def _gap(self) -> int:
        return max(4, self._font // 2)


def sheet(
    stack: CamStack,
    image: ImageSource,
    *,
    normalize: Normalization = "layer",
    size: int = 192,
    columns: int | None = None,
    colormap: Colormap = "turbo",
    method: str | None = None,
    target: int | None = None,
    sample: int = 0,
    title: str | None = None,
) -> Sheet:
    """A contact sheet of every layer of ``stack``, in its order, after the photograph.

    Args:
        stack: The maps; leave out what should not be shown with ``stack.shown()`` or
            ``stack.select(layers=)``.
        image: The photograph: PIL, array or path; see :func:`camfuse.images.read_image`.
        normalize: Whether each map's own range is shown, or that over all layers.
        size: Longer side of each picture in pixels, 16 to 8192.
        columns: Pictures side by side; by default so many that the sheet is about 3 : 2.
        colormap: The colour map; see :func:`camfuse.render`.
        method: Which method, if the stack holds several.
        target: Which target, by position, if the stack holds several.
        sample: Which image of the batch.
        title: The line above; by default model, method and target.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If it does not fit, or several methods or targets are left.
    """
    check_look(normalize=normalize, size=size, colormap=colormap, columns=columns)
    check_pictures([stack])
    photograph = read_image(image)
    frames = render(
        stack,
        photograph,
        panels=["source", normalize],
        size=size,
        colormap=colormap,
        method=method,
        target=target,
        sample=sample,
    )
    views = choose_views([stack], method, target, sample)
    if len(views) != 1:
        raise ValueError(f"method, target: expected one map per layer, got {len(views)}")
    captions = [(stack.names[i], views[0].layer_text(i)[1]) for i in range(len(stack))]
    tiles = [
        _panel(frames, 0, position=0),
        *(_panel(frames, i, position=1) for i in range(len(stack))),
    ]
    if columns is None:
        height, width, _ = tiles[0].shape
        columns = math.ceil(math.sqrt(len(tiles) * 1.5 * (height + size / 5) / width))
    return Sheet(
        title=title_of(views) if title is None else title,
        tiles=tuple(tiles),
        captions=(("photograph", f"{photograph.width} x {photograph.height}"), *captions),
        columns=min(columns, len(tiles)),
    )


def _panel(frames: Frames, index: int, position: int = 0) -> np.ndarray:
    """One panel ``[Hp, Wp, 3]`` of one frame."""
    _, _, top, left = frames.canvas.panels[position]
    height, width = frames.canvas.panel_height, frames.canvas.panel_width
    return frames.frame(index)[top : top + height, left : left + width].numpy()


def _data_uri(picture: np.ndarray) -> str:
    with io.BytesIO() as file:
        Image.fromarray(picture).save(file, "PNG")
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
