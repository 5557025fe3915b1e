"""What ``animate`` and ``demo`` share: checks first, then the model, then the video."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        from camfuse.animate import animate
        from camfuse.images import read_image
        from camfuse.models import load_model

        start = time.perf_counter()
        photograph = read_image(image)
        self._check((photograph.height, photograph.width))
        read = time.perf_counter()
        model = load_model(self.model, weights=self.weights, device=self.device)
        loaded = time.perf_counter()
        with _progress_bar() as progress:
            result = animate(
                model,
                photograph,
                self.out,
                method=self.method,
                layers=self.layers,
                normalize=self.normalize,  # type: ignore[arg-type]  # animate checks it
                target=parse_target(self.target, model.classes),
                fps=self.fps,
                size=self.size,
                colormap=self.colormap,
                save_maps=self.save_maps,
                ffmpeg=self.ffmpeg,
                progress=progress,
            )
        report = result.to_dict()
        report["seconds"] |= {"image": read - start, "model": loaded - read}
        return {
            "version": version("camfuse"),
            **report,
            "model": model.spec,
            "weights": model.weights,
        }

    def _check(self, image_size: tuple[int, int]) -> None:
        """Every check that needs no model, so that a slip does not cost a download."""
        from camfuse.canvas import Canvas
        from camfuse.colormaps import color_table
        from camfuse.methods import find_method
        from camfuse.video import check_output, find_ffmpeg

        check_output(self.out)
        _check_writable(self.out.parent)
        find_ffmpeg(self.ffmpeg)
        find_method(self.method)
        color_table(self.colormap)
        Canvas.fit(image_size, size=self.size)
        if self.normalize not in ("layer", "global", "both"):
            raise ValueError(f"--normalize: expected layer, global or both, got {self.normalize!r}")
        if self.save_maps is not None:
            _check_maps(self.save_maps)


def _check_maps(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise ValueError(f"--save-maps: expected a name in .safetensors, got {str(path)!r}")
    if path.is_dir():
        raise ValueError(f"--save-maps: expected a file, got the folder {str(path)!r}")
    if not path.parent.is_dir():
        raise ValueError(f"--save-maps: there is no folder {str(path.parent)!r}")
    _check_writable(path.parent)


def _check_writable(folder: Path) -> None:
    """By a file without a name, for permissions alone do not tell (nor count for root)."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f"cannot write to the folder {str(folder)!r}: {error.strerror}") from error


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


def summary(report: dict[str, Any]) -> str:
    """The report in two lines, for people."""
    target = report["target"]
    name = target["name"] or f"class {target['index']}"
    return (
        f"{report['path']}: {report['frames']} layers, {report['bytes_written'] / 1e6:.1f} MB, "
        f"{sum(report['seconds'].values()):.1f} s\n"
        f"{report['method']} of {name} (p = {target['probability']:.3f}), "
        f"{len(report['skipped'])} modules skipped"
    )
