"""``camfuse demo``: EfficientNet-Lite0 looks at the cat that comes with scikit-image."""

from __future__ import annotations

import contextlib
import importlib
import json
from pathlib import Path
from typing import Annotated

import typer

from camfuse.cli import options
from camfuse.cli.job import Job, summary


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
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: expected a folder, got the file {str(out)!r}")
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        report = Job(model="efficientnet-lite:0", out=out / "cat.mp4", ffmpeg=ffmpeg).run(
            photograph
        )
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                out.rmdir()
        raise
    text = json.dumps(report, indent=2)
    (out / "cat.json").write_text(text + "\n", encoding="utf-8")
    print(text if as_json else summary(report))
