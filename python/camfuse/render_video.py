"""From ready maps and a photograph to a video file; no model is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from camfuse.checks import check_not_input
from camfuse.formats import FORMATS, preferred_pixel_format
from camfuse.images import ImageSource
from camfuse.notebook import media_html
from camfuse.render import render
from camfuse.stack import CamStack
from camfuse.style import VideoStyle
from camfuse.video import VideoWriter

Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps there are."""


@dataclass(frozen=True)
class Video:
    """A finished video file.

    Attributes:
        path: Where it lies.
        frames: How many it has.
        height: Of a frame, in pixels.
        width: Of a frame, in pixels.
        titles: What each frame shows: its layer, or the layer of each model.
        bytes_written: Size of the file.
    """

    path: Path
    frames: int
    height: int
    width: int
    titles: tuple[str, ...]
    bytes_written: int

    def _repr_html_(self) -> str:
        """The video itself, for notebooks."""
        return media_html(self.path)


def render_video(
    stack: CamStack | Sequence[CamStack],
    image: ImageSource,
    out: str | os.PathLike[str],
    *,
    style: VideoStyle | None = None,
    method: str | Sequence[str] | None = None,
    target: int | Sequence[int] | None = None,
    sample: int = 0,
    title: str | None = None,
    ffmpeg: str | Path | None = None,
    progress: Progress | None = None,
) -> Video:
    """Writes a video of the layers of ``stack`` that are to be shown.

    Args:
        stack: Maps of one model, or of several to compare.
        image: The photograph; see :func:`camfuse.read_image`.
        out: The video; its ending chooses the format. It appears once it is complete.
        style: How it looks; the defaults of :class:`VideoStyle` if absent.
        method: Which methods, by name; all, side by side, by default.
        target: Which targets, by position; likewise.
        sample: Which image of the batch.
        title: A line above the panels; see :func:`camfuse.render`.
        ffmpeg: Path of the ffmpeg to use.
        progress: Called as work goes on, with the stage ``"video"``.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument does not fit.
        OSError: If the folder of ``out`` cannot be written to.
        camfuse.VideoError: If there is no ffmpeg, or it fails.
    """
    style = style or VideoStyle()
    stacks = [stack] if isinstance(stack, CamStack) else stack
    style.check(out, ffmpeg=ffmpeg, series={name for one in stacks for name in one.series})
    if isinstance(image, str | os.PathLike):
        check_not_input(Path(out), [Path(image)])
    frames = render(
        [style.shown(one.select(sample=sample)) for one in stacks],
        image,
        panels=style.panels,
        size=style.size,
        colormap=style.colormap,
        pixel_format=preferred_pixel_format(Path(out), style.codec, ffmpeg),
        method=method,
        target=target,
        title=title,
        curve=style.curve,
    )
    with VideoWriter(
        out,
        width=frames.width,
        height=frames.height,
        fps=style.fps,
        pixel_format=frames.pixel_format,
        codec=style.codec,
        crf=style.crf,
        effort=style.effort,
        chapters=frames.titles if FORMATS[Path(out).suffix.lower()].chapters else None,
        ffmpeg=ffmpeg,
    ) as writer:
        for chunk in frames:
            writer.write(chunk)
            if progress:
                progress("video", writer.frames_written, len(frames))
    return Video(
        path=Path(out),
        frames=len(frames),
        height=frames.height,
        width=frames.width,
        titles=frames.titles,
        bytes_written=writer.bytes_written,
    )
