"""``camfuse demo``: EfficientNet-Lite0 looks at the cat that comes with scikit-image."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from camfuse.cli import options
from camfuse.cli.folders import made_folder
from camfuse.cli.progress import at_work
from camfuse.cli.report import json_text, summary


def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the results; made if need be.")
    ] = Path("demo"),
    road: options.Road = False,
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
    with at_work() as progress, made_folder(out):
        from camfuse.animate import animate
        from camfuse.storage import written_whole

        result = animate(
            "efficientnet-lite:0",
            photograph,
            out / "cat.mp4",
            curve=None if road else "evidence",
            road=road,
            ffmpeg=ffmpeg,
            progress=progress,
        )
        report = {"version": version("camfuse"), **result.to_dict()}
        with written_whole(out / "cat.json") as temporary:
            temporary.write_text(json_text(report, indent=2) + "\n", encoding="utf-8")
    print(json_text(report, indent=2) if as_json else summary(report))
