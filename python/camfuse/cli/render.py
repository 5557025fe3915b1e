"""``camfuse render``: a video from saved maps, without the model."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from camfuse.cli import options
from camfuse.cli.progress import at_work
from camfuse.cli.report import json_text


def render(
    maps: Annotated[
        Path,
        typer.Argument(
            metavar="MAPS", help="Maps that --save-maps wrote, .safetensors.", show_default=False
        ),
    ],
    image: options.Image,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="NAME", help="A saved method; all by default."),
    ] = None,
    target: Annotated[
        list[int] | None,
        typer.Option("--target", metavar="N", help="Position of a saved target; all by default."),
    ] = None,
    layers: options.SavedLayers = None,
    sample: Annotated[int, typer.Option(metavar="N", help="Which image of a saved batch.")] = 0,
    normalize: options.Normalize = "both",
    size: options.Size = 448,
    colormap: options.Colormap = "turbo",
    fps: options.Fps = "5",
    curve: options.Curve = None,
    keyframes: options.Keyframes = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The video: .mp4, .webm, .mkv, .gif or .webp; by default IMAGE.mp4 in this "
            "folder.",
        ),
    ] = None,
    codec: options.Codec = None,
    crf: options.Crf = None,
    effort: options.Effort = "fast",
    ffmpeg: options.Ffmpeg = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make a video of maps that were saved: another format, colours, layers, without the model."""
    rate = options.parse_fps(fps)
    with at_work() as progress:
        from camfuse.render_video import render_video
        from camfuse.saved_layers import choose_layers
        from camfuse.storage import load_stack
        from camfuse.style import VideoStyle

        stack = load_stack(maps)
        video = render_video(
            choose_layers(stack, options.parse_layers(layers)) if layers else stack,
            image,
            out or Path(f"{image.stem}.mp4"),
            style=VideoStyle(
                normalize=normalize,  # type: ignore[arg-type]  # the style checks its choices
                size=size,
                colormap=colormap,
                fps=rate,
                curve=curve,
                keyframes=keyframes,
                codec=codec,
                crf=crf,
                effort=effort,  # type: ignore[arg-type]
            ),
            method=method,
            target=target,
            sample=sample,
            ffmpeg=ffmpeg,
            progress=progress,
        )
    report = {"version": version("camfuse"), **asdict(video), "path": str(video.path)}
    if as_json:
        print(json_text(report))
    else:
        print(f"{video.path}: {video.frames} layers, {video.bytes_written / 1e6:.1f} MB")
