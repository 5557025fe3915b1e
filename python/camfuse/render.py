"""Finished video frames from a CamStack and the photograph it explains, made chunk by chunk."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camfuse import ops
from camfuse.canvas import Canvas, FrameText
from camfuse.checks import expect_whole
from camfuse.colormaps import Colormap, color_table
from camfuse.devices import current_stream, on_stream, runs_on, upload
from camfuse.images import ImageSource, read_image
from camfuse.ops import PanelKind, PixelFormat
from camfuse.pinned import through_pinned_memory
from camfuse.stack import CamStack
from camfuse.views import View, choose_views, curves_of, labels_of, title_of

_CHUNK_FRAMES, _CHUNK_BYTES = 16, 64 * 2**20  # rendered at once, at most
_PINNED_BYTES = 8 * 2**20  # of a chunk that comes from a GPU, at most: it lies in pinned memory


@dataclass(frozen=True, eq=False)
class _Maps:
    """The V maps of each of N frames."""

    flat: Tensor  # [S]
    offsets: Tensor  # [N, V]
    sizes: Tensor  # [N, V, 2]
    ranges: Tensor  # [N, V, 2]
    global_ranges: Tensor  # [V, 2]


@dataclass(frozen=True, eq=False, repr=False)
class Frames:
    """One frame per layer, rendered when asked for.

    ``len(frames)`` counts them. Iterating yields uint8 tensors ``[n, bytes]`` of up to ``chunk``
    frames, on the CPU: ``3 * H * W`` bytes each for rgb24, half of that for i420 and nv12. Frames
    of maps that lie on a GPU are rendered there, on the stream that was current when
    :func:`render` was called, and copied while the next ones are rendered.

    Attributes:
        canvas: Where everything lies on a frame.
        pixel_format: ``"rgb24"``, ``"i420"`` or ``"nv12"``.
        chunk: Frames rendered at once.
        titles: What each frame shows, in words: its layer, or the layer of each model.
    """

    canvas: Canvas
    pixel_format: PixelFormat
    chunk: int
    titles: tuple[str, ...]
    _headings: tuple[tuple[FrameText, ...], ...]
    _maps: _Maps
    _source: Tensor  # [Hp, Wp, 3]; like all tensors here on the device that renders
    _colours: Tensor  # [256, 3]
    _background: int
    _blend: float
    _relu: bool
    _stream: torch.cuda.Stream | None

    def __len__(self) -> int:
        """The number of frames."""
        return len(self.titles)

    def __iter__(self) -> Iterator[Tensor]:
        """Chunks ``[n, bytes]`` of frames, uint8."""
        return self._on_host(range(0, len(self), self.chunk), self.chunk)

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
        return next(self._on_host([index], 1)).view(self.height, self.width, 3)

    def _on_host(self, starts: Iterable[int], count: int) -> Iterator[Tensor]:
        """``count`` frames, or as many as there are, from each of ``starts``."""
        chunks = (self._rendered(start, start + count) for start in starts)
        return chunks if self._stream is None else through_pinned_memory(chunks, self._stream)

    def _rendered(self, start: int, end: int) -> Tensor:
        """Frames on the device of the maps."""
        part = slice(start, end)
        overlay = self.canvas.draw(self._headings[part], start)
        with on_stream(self._stream):
            return ops.render_frames(
                self._maps.flat,
                self._maps.offsets[part].flatten().tolist(),
                self._maps.sizes[part].flatten(0, 1).tolist(),
                self._maps.ranges[part],
                self._maps.global_ranges,
                self._source,
                self._colours,
                self.canvas.panels,
                (self.height, self.width),
                background=self._background,
                blend=self._blend,
                relu=self._relu,
                overlay=upload(overlay, self._source.device),
                strips=self.canvas.strips,
                pixel_format=self.pixel_format,
            )


def render(
    stack: CamStack | Sequence[CamStack],
    image: ImageSource,
    *,
    panels: Sequence[PanelKind] = ("source", "layer", "global"),
    size: int = 448,
    colormap: Colormap = "turbo",
    blend: float = 0.5,
    pixel_format: PixelFormat = "rgb24",
    sample: int = 0,
    method: str | Sequence[str] | None = None,
    target: int | Sequence[int] | None = None,
    relu: bool = True,
    title: str | None = None,
    curve: str | None = None,
    background: int = 16,
    chunk: int | None = None,
) -> Frames:
    """Frames of every layer of ``stack``, in its order.

    Several methods or targets are shown side by side. So are several stacks, of models to compare:
    their layers pass at the same relative depth.

    Args:
        stack: The maps, of one model or of several; leave out what should not be shown with
            ``stack.shown()`` or ``stack.select(layers=)``.
        image: The photograph; see :func:`camfuse.read_image`. It is resized to the panels.
        panels: What to show: ``"source"`` (the photograph), ``"layer"`` (the map in its layer's own
            range) and ``"global"`` (in the range over all layers).
        size: Longer side of a panel in pixels, 16 to 8192.
        colormap: A colour map, see :func:`camfuse.colormaps.color_table`.
        blend: Weight of the colour map over the photograph, in [0, 1].
        pixel_format: ``"rgb24"``, or ``"i420"`` or ``"nv12"`` for video encoders.
        sample: Which image of the batch.
        method: Which methods, by name; all by default.
        target: Which targets, by position; all by default.
        relu: Whether negative evidence becomes 0.
        title: A line above the panels, the same on all frames; by default model, method and
            target, as far as all maps share them.
        curve: A score per layer to draw below the panels: the name of one of the stack's
            ``series``, or ``"evidence"`` (:data:`camfuse.views.EVIDENCE`).
        background: Grey level 0..255 around the panels.
        chunk: Frames rendered at once while iterating; chosen by their size by default.

    Returns:
        The frames, rendered on demand.

    Raises:
        ValueError: If an argument is not as described.
    """
    if chunk is not None:
        expect_whole("chunk", chunk, at_least=1)
    stacks = [stack] if isinstance(stack, CamStack) else list(stack)
    device = stacks[0].flat.device if stacks else torch.device("cpu")
    if device.type == "cpu" or not runs_on("render_frames", device):
        device = torch.device("cpu")
        stacks = [one.cpu() for one in stacks]
    views = choose_views(stacks, method, target, sample)
    count = max(len(view.stack) for view in views)
    photograph = read_image(image)
    headings = [_headings(views, len(stacks), frame, count) for frame in range(count)]
    canvas = Canvas.fit(
        (photograph.height, photograph.width),
        panels,
        size=size,
        labels=labels_of(views),
        title=title_of(views) if title is None else title,
        headings=len(stacks),
        frames=count,
        curves=[] if curve is None else curves_of(views, curve, count),
    )
    resized = photograph.resize((canvas.panel_width, canvas.panel_height), Image.Resampling.LANCZOS)
    room = _CHUNK_BYTES if device.type == "cpu" else _PINNED_BYTES
    frames = Frames(
        canvas=canvas,
        pixel_format=pixel_format,
        chunk=chunk or max(1, min(_CHUNK_FRAMES, room // (3 * canvas.height * canvas.width))),
        titles=tuple(" | ".join(line.name for line in lines) for lines in headings),
        _headings=tuple(headings),
        _maps=_gather(views, stacks, count, device),
        _source=upload(torch.from_numpy(np.array(resized)), device),
        _colours=upload(color_table(colormap), device),
        _background=background,
        _blend=blend,
        _relu=relu,
        _stream=current_stream(device),
    )
    frames._rendered(0, 0)  # validates every option before the first frame
    return frames


def _gather(
    views: Sequence[View], stacks: Sequence[CamStack], frames: int, device: torch.device
) -> _Maps:
    """The maps of all stacks in one buffer, and which of them each frame shows."""
    dtype = max((one.ranges.dtype for one in stacks), key=lambda one: one.itemsize)
    flats = [one.flat.detach().to(device, dtype) for one in stacks]
    starts = dict(zip(stacks, itertools.accumulate(map(len, flats), initial=0), strict=False))
    layers = [[view.layer_of(frame, frames) for frame in range(frames)] for view in views]
    shown = list(zip(views, layers, strict=True))
    offsets = [[starts[v.stack] + v.offset(layer) for layer in row] for v, row in shown]
    sizes = [[v.stack.layers[layer].size for layer in row] for v, row in shown]
    ranges = [
        v.ranges.detach()
        .to(device, dtype)
        .index_select(0, upload(torch.tensor(row, dtype=torch.long), device))
        for v, row in shown
    ]
    return _Maps(
        flat=torch.cat(flats) if len(flats) > 1 else flats[0],
        offsets=torch.tensor(offsets, dtype=torch.long).T,
        sizes=torch.tensor(sizes, dtype=torch.long).view(len(views), frames, 2).transpose(0, 1),
        ranges=torch.stack(ranges, 1),
        global_ranges=torch.stack([v.global_range.detach().to(device, dtype) for v in views]),
    )


def _headings(views: Sequence[View], stacks: int, frame: int, frames: int) -> tuple[FrameText, ...]:
    """A line for each stack: the layer of its first view, and the model if there are several."""
    first_of_each = [next(v for v in views if v.model == model) for model in range(stacks)]
    lines = []
    for view in first_of_each:
        name, details = view.layer_text(view.layer_of(frame, frames))
        lines.append(FrameText(f"{view.stack.model}: {name}" if stacks > 1 else name, details))
    return tuple(lines)
