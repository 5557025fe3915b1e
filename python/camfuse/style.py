"""How a video of maps looks, and how it is encoded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

from camfuse.canvas import Canvas
from camfuse.checks import expect, expect_whole
from camfuse.colormaps import Colormap, color_table
from camfuse.footer import Curve
from camfuse.formats import Effort, check_choices, preferred_pixel_format
from camfuse.ops import PanelKind
from camfuse.stack import CamStack
from camfuse.thinning import YBROAD, key_layers
from camfuse.video import check_output, exact_fps
from camfuse.views import check_series

Normalize = Literal["layer", "global", "both"]


@dataclass(frozen=True, eq=False)
class VideoStyle:
    """How a video of maps looks, and how it is encoded.

    Attributes:
        normalize: Panels: each map by its own range, by the range over all layers, or both.
        size: Longer side of a panel in pixels.
        colormap: Name of the colour map, or a table ``[256, 3]`` of one's own; see
            :func:`camfuse.colormaps.color_table`.
        fps: Frames (layers) per second.
        curve: A score per layer to draw below the panels; see :func:`camfuse.render`.
        keyframes: Show only this many layers: those whose maps differ most from each other, and
            where the maps have a series ``"ybroad"``, those that score high; see
            :func:`camfuse.key_layers`.
        codec: How frames are compressed, where the file's ending leaves a choice; see
            :mod:`camfuse.formats`.
        crf: Quality in the codec's own numbers; less is better.
        effort: ``"fast"``, or ``"small"`` for a smaller file.
    """

    normalize: Normalize = "both"
    size: int = 448
    colormap: Colormap = "turbo"
    fps: float | Fraction = 5
    curve: str | None = None
    keyframes: int | None = None
    codec: str | None = None
    crf: int | None = None
    effort: Effort = "fast"

    @property
    def panels(self) -> tuple[PanelKind, ...]:
        """What the panels show."""
        if self.normalize == "both":
            return ("source", "layer", "global")
        return ("source", self.normalize)

    def check(
        self,
        out: str | os.PathLike[str],
        *,
        ffmpeg: str | Path | None = None,
        series: Iterable[str] = (),
    ) -> None:
        """Checks all that can be known before there are maps.

        Args:
            out: The video to be written.
            ffmpeg: Path of the ffmpeg to use.
            series: Scores that the maps will have.

        Raises:
            TypeError: If an attribute is of the wrong type.
            ValueError: If one does not fit, or not for this ``out``.
            OSError: If the folder of ``out`` cannot be written to.
            camfuse.VideoError: If there is no ffmpeg, or it lacks the codec.
        """
        if self.normalize not in get_args(Normalize):
            raise ValueError(
                f"normalize: expected 'layer', 'global' or 'both', got {self.normalize!r}"
            )
        color_table(self.colormap)
        fps = exact_fps(self.fps)
        expect_whole("size", self.size, of="pixels")
        Canvas.fit((1, 1), size=self.size)
        if self.keyframes is not None:
            expect_whole("keyframes", self.keyframes, at_least=1)
        expect("curve", self.curve, str, type(None))
        if self.curve is not None:
            check_series(self.curve, series)
        expect("out", out, str, os.PathLike)
        check_output(Path(out), name="out")
        check_choices(Path(out), codec=self.codec, crf=self.crf, effort=self.effort, fps=fps)
        preferred_pixel_format(out, self.codec, ffmpeg)

    def check_size(
        self,
        out: str | os.PathLike[str],
        image_size: tuple[int, int],
        maps: int = 1,
        models: int = 1,
    ) -> None:
        """Checks that frames will not be too large for their format.

        Args:
            out: The video to be written.
            image_size: ``(H, W)`` of the photograph.
            maps: How many are compared on each frame.
            models: How many those are of.

        Raises:
            ValueError: If no encoder takes frames of the size that they will have.
        """
        canvas = Canvas.fit(
            image_size,
            self.panels,
            size=self.size,
            labels=[""] * maps,
            title="title",
            headings=models,
            frames=2,
            curves=[] if self.curve is None else [Curve("", (0.0, 0.0))],
        )
        try:
            check_choices(
                Path(out),
                codec=self.codec,
                crf=self.crf,
                effort=self.effort,
                fps=exact_fps(self.fps),
                size=(canvas.width, canvas.height),
            )
        except ValueError as error:
            raise ValueError(
                f"size: frames of {canvas.width} x {canvas.height} pixels are too large ({error}); "
                "choose a smaller size or compare less"
            ) from error

    def shown(self, stack: CamStack) -> CamStack:
        """The layers of ``stack`` that become frames.

        Raises:
            ValueError: If none does; the message says why.
        """
        shown = stack.shown()
        if not len(shown):
            reasons = "; ".join(f"{one.name}: {one.reason}" for one in stack.skipped[:4])
            raise ValueError(f"layers: none of those selected becomes a frame ({reasons})")
        if self.keyframes is None:
            return shown
        chosen = key_layers(shown, self.keyframes, shown.series.get(YBROAD))
        return shown.select(layers=[shown.names[i] for i in chosen])
