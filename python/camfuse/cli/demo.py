"""``camfuse demo``: EfficientNet-Lite0 looks at the cat that comes with scikit-image."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from camfuse.cli import import_all, options
from camfuse.cli.job import Job, json_text, summary


def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the results; made if need be.")
    ] = Path("demo"),
    ffmpeg: options.Ffmpeg = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Animate EfficientNet-Lite0 on a photograph of a cat: DIR/cat.mp4 and DIR/cat.json."""
    try:
        photograph = importlib.import_module("skimage.data").cat()
    except ImportError as error:
        raise RuntimeError(
            f"the demo's photograph comes with scikit-image ({error}); pip install 'camfuse[demo]'"
        ) from error
    import_all()
    with _folder(out):
        report = Job(model="efficientnet-lite:0", out=out / "cat.mp4", ffmpeg=ffmpeg).run(
            photograph
        )
        text = json_text(report, indent=2)
        _write(out / "cat.json", text + "\n")
    print(text if as_json else summary(report))


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Makes the folder and those above it; after a failure, those made are gone again if empty."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    above = next(one for one in (path, *path.parents) if one.exists())
    if not above.is_dir():
        raise ValueError(f"--out: expected a folder, got {str(path)!r}, and {above} is a file")
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for one in missing:
                one.rmdir()
        raise


def _write(path: Path, text: str) -> None:
    from camfuse.storage import written_whole

    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
