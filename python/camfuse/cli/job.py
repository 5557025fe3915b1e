"""What ``animate`` and ``demo`` share: one video, and how its making is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camfuse.cli import import_all
from camfuse.cli.options import parse_target

if TYPE_CHECKING:
    from camfuse.animate import Progress
    from camfuse.images import ImageSource


@dataclass(frozen=True)
class Job:
    """One video to make; the fields are the options of ``camfuse animate``."""

    model: str
    out: Path
    weights: str | None = None
    method: str = "gradcam"
    layers: tuple[str, ...] = ("leaf",)
    normalize: str = "both"
    target: str | None = None
    fps: Fraction = Fraction(5)
    size: int = 448
    colormap: str = "turbo"
    save_maps: Path | None = None
    device: str = "cpu"
    ffmpeg: Path | None = None

    def run(self, image: ImageSource) -> dict[str, Any]:
        """Makes the video and returns what ``--json`` prints.

        Whatever libraries or the user's model print goes to stderr meanwhile.
        """
        with redirect_stdout(sys.stderr):
            return self._run(image)

    def _run(self, image: ImageSource) -> dict[str, Any]:
        import_all()
        from camfuse.animate import animate

        with _progress_bar() as progress:
            result = animate(
                self.model,
                image,
                self.out,
                weights=self.weights,
                device=self.device,
                method=self.method,
                layers=self.layers,
                normalize=self.normalize,  # type: ignore[arg-type]  # animate checks it
                target=parse_target(self.target),
                fps=self.fps,
                size=self.size,
                colormap=self.colormap,
                save_maps=self.save_maps,
                ffmpeg=self.ffmpeg,
                progress=progress,
            )
        return {"version": version("camfuse"), **result.to_dict()}


@contextmanager
def _progress_bar() -> Iterator[Progress | None]:
    """A bar on stderr that vanishes when done; nothing where stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task("")

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total)

        yield show


def json_text(report: dict[str, Any], indent: int | None = None) -> str:
    """The report as strict JSON."""
    return json.dumps(report, indent=indent, allow_nan=False)


def summary(report: dict[str, Any]) -> str:
    """The report in two lines, for people."""
    target = report["target"]
    name = target["name"] or f"class {target['index']}"
    probability = target["probability"]
    p = "not finite" if probability is None else f"{probability:.3f}"
    return (
        f"{report['path']}: {report['frames']} layers, {report['bytes_written'] / 1e6:.1f} MB, "
        f"{sum(report['seconds'].values()):.1f} s\n"
        f"{report['method']} of {name} (p = {p}), "
        f"{len(report['skipped'])} modules skipped"
    )
