"""Finished video frames from a CamStack and the photograph it explains, made chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camfuse import ops
from camfuse.canvas import Canvas, FrameText
from camfuse.colormaps import color_table
from camfuse.ops import PanelKind, PixelFormat
from camfuse.stack import CamStack, LayerInfo


@dataclass(frozen=True, eq=False, repr=False)
class Frames:
    """One frame per layer, rendered when asked for.

    ``len(frames)`` counts them. Iterating yields uint8 tensors ``[n, bytes]`` of up to ``chunk``
    frames: ``3 * H * W`` bytes each for rgb24, half of that for i420 and nv12.

    Attributes:
        canvas: Where everything lies on a frame.
        pixel_format: ``"rgb24"``, ``"i420"`` or ``"nv12"``.
        chunk: Frames rendered at once.
    """

    canvas: Canvas
    pixel_format: PixelFormat
    chunk: int
    _texts: tuple[FrameText, ...]
    _maps: Tensor  # [S]
    _offsets: tuple[int, ...]
    _sizes: tuple[tuple[int, int], ...]
    _ranges: Tensor  # [N, 1, 2]
    _global_ranges: Tensor  # [1, 2]
    _source: Tensor  # [Hp, Wp, 3]
    _colours: Tensor  # [256, 3]
    _background: int
    _blend: float
    _relu: bool

    def __len__(self) -> int:
        """The number of frames."""
        return len(self._sizes)

    def __iter__(self) -> Iterator[Tensor]:
        """Chunks ``[n, bytes]`` of frames, uint8."""
        for start in range(0, len(self), self.chunk):
            yield self._rendered(start, start + self.chunk)

    def __repr__(self) -> str:
        """Their number, size and format."""
        return f"Frames({len(self)} of {self.height} x {self.width}, {self.pixel_format})"

    @property
    def height(self) -> int:
        """Of a frame, in pixels."""
        return self.canvas.height

    @property
    def width(self) -> int:
        """Of a frame, in pixels."""
        return self.canvas.width

    def frame(self, index: int) -> Tensor:
        """One frame as an image ``[H, W, 3]``, uint8; for rgb24 only."""
        if self.pixel_format != "rgb24":
            raise ValueError(f"frame() needs pixel_format 'rgb24', got {self.pixel_format!r}")
        index = range(len(self))[index]
        return self._rendered(index, index + 1).view(self.height, self.width, 3)

    def _rendered(self, start: int, end: int) -> Tensor:
        part = slice(start, end)
        return ops.render_frames(
            self._maps,
            self._offsets[part],
            self._sizes[part],
            self._ranges[part],
            self._global_ranges,
            self._source,
            self._colours,
            [(kind, 0, top, left) for kind, top, left in self.canvas.panels],
            (self.height, self.width),
            background=self._background,
            blend=self._blend,
            relu=self._relu,
            overlay=self.canvas.draw(self._texts[part]),
            strips=self.canvas.strips,
            pixel_format=self.pixel_format,
        )


def render(
    stack: CamStack,
    image: Image.Image | np.ndarray,
    *,
    panels: Sequence[PanelKind] = ("source", "layer", "global"),
    size: int = 448,
    colormap: str = "turbo",
    blend: float = 0.5,
    pixel_format: PixelFormat = "rgb24",
    sample: int = 0,
    method: str | None = None,
    target: int | None = None,
    relu: bool = True,
    title: str = "",
    background: int = 16,
    chunk: int = 16,
) -> Frames:
    """Frames of every layer of ``stack``, in its order.

    Args:
        stack: The maps; leave out what should not be shown with ``stack.shown()`` or
            ``stack.select(layers=)``.
        image: The photograph: PIL, or ``[H, W, 3]`` uint8. It is resized to the panels.
        panels: What to show side by side: ``"source"`` (the photograph), ``"layer"`` (the map in
            its layer's own range) and ``"global"`` (in the range over all layers).
        size: Longer side of a panel in pixels, 16 to 8192.
        colormap: Name of a colour map, see :func:`camfuse.colormaps.color_table`.
        blend: Weight of the colour map over the photograph, in [0, 1].
        pixel_format: ``"rgb24"``, or ``"i420"`` or ``"nv12"`` for video encoders.
        sample: Which image of the batch.
        method: Which method, by name; needed if the stack holds several.
        target: Which target, by position; needed if the stack holds several.
        relu: Whether negative evidence becomes 0.
        title: A second line above the panels, the same on all frames.
        background: Grey level 0..255 around the panels.
        chunk: Frames rendered at once while iterating.

    Returns:
        The frames, rendered on demand.

    Raises:
        ValueError: If an argument is not as described.
    """
    if chunk < 1:
        raise ValueError(f"chunk: expected at least 1, got {chunk}")
    r, t, b = _choice(stack, method, target, sample)
    photograph = _picture(image)
    canvas = Canvas.fit((photograph.height, photograph.width), panels, size=size, title=title)
    resized = photograph.resize((canvas.panel_width, canvas.panel_height), Image.Resampling.LANCZOS)
    count = len(stack.layers)
    frames = Frames(
        canvas=canvas,
        pixel_format=pixel_format,
        chunk=chunk,
        _texts=tuple(
            _text(layer, f"{i + 1}/{count}", stack.methods[r])
            for i, layer in enumerate(stack.layers)
        ),
        _maps=stack.flat.detach().to("cpu", stack.ranges.dtype),
        _offsets=tuple(stack.offset(i, method=r, target=t, sample=b) for i in range(count)),
        _sizes=tuple(layer.size for layer in stack.layers),
        _ranges=stack.ranges[:, r, t, b, None].detach().cpu(),
        _global_ranges=stack.global_ranges[r, t, b, None].detach().cpu(),
        _source=torch.from_numpy(np.array(resized)),
        _colours=color_table(colormap),
        _background=background,
        _blend=blend,
        _relu=relu,
    )
    frames._rendered(0, 0)  # validates every option before the first frame
    return frames


def _choice(
    stack: CamStack, method: str | None, target: int | None, sample: int
) -> tuple[int, int, int]:
    """Positions of the method, the target and the sample to show."""
    methods, targets, samples = stack.axes
    if method not in (stack.methods if methods > 1 else (None, *stack.methods)):
        raise ValueError(f"method: expected one of {', '.join(stack.methods)}, got {method!r}")
    if target is None and targets > 1:
        raise ValueError(f"target: expected 0..{targets - 1}, got None")
    for name, index, count in (("target", target or 0, targets), ("sample", sample, samples)):
        if not 0 <= index < count:
            raise ValueError(f"{name}: expected 0..{count - 1}, got {index}")
    return 0 if method is None else stack.methods.index(method), target or 0, sample


def _picture(image: Image.Image | np.ndarray) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise ValueError(
            f"image must be [H, W, 3] of uint8, got shape {array.shape} of {array.dtype}"
        )
    return Image.fromarray(array)


def _text(layer: LayerInfo, number: str, method: str) -> FrameText:
    details = [layer.type, " x ".join(map(str, layer.shape))]
    if method in layer.degenerate:
        details.append("degenerate")
    return FrameText(f"{number} · {layer.name}", " · ".join(details))
