"""How a video of maps looks, and how it is encoded."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

from camfuse.canvas import Canvas
from camfuse.checks import expect
from camfuse.colormaps import Colormap, color_table
from camfuse.formats import Effort, check_choices
from camfuse.ops import PanelKind
from camfuse.stack import CamStack
from camfuse.thinning import key_layers
from camfuse.video import check_output, exact_fps

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
        keyframes: Show only this many layers: those whose maps differ most from each other.
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

    def check(self, out: str | os.PathLike[str]) -> None:
        """Checks all that can be known before there are maps.

        Args:
            out: The video to be written.

        Raises:
            TypeError: If an attribute is of the wrong type.
            ValueError: If one does not fit, or not for this ``out``.
            OSError: If the folder of ``out`` cannot be written to.
        """
        if self.normalize not in get_args(Normalize):
            raise ValueError(
                f"normalize: expected 'layer', 'global' or 'both', got {self.normalize!r}"
            )
        color_table(self.colormap)
        exact_fps(self.fps)
        for name in ("size", "keyframes"):
            _expect_whole(name, getattr(self, name), "pixels" if name == "size" else "")
        Canvas.fit((1, 1), size=self.size)
        if self.keyframes is not None and self.keyframes < 1:
            raise ValueError(f"keyframes: expected at least 1, got {self.keyframes}")
        expect("curve", self.curve, str, type(None))
        check_output(Path(out), name="out")
        check_choices(Path(out), codec=self.codec, crf=self.crf, effort=self.effort)

    def shown(self, stack: CamStack) -> CamStack:
        """The layers of ``stack`` that become frames."""
        shown = stack.shown()
        if self.keyframes is None:
            return shown
        return shown.select(layers=[shown.names[i] for i in key_layers(shown, self.keyframes)])


def _expect_whole(name: str, value: object, unit: str) -> None:
    if value is None:
        return
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        what = f"a whole number of {unit}" if unit else "a whole number"
        raise TypeError(f"{name}: expected {what}, got {value!r}") from None
