"""``camfuse animate``: a video of where a model looks in a photograph, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camfuse.cli import options
from camfuse.cli.job import Job, json_text, summary


def animate(
    image: Annotated[Path, typer.Argument(help="The photograph.", show_default=False)],
    model: options.Model,
    weights: options.Weights = None,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="The CAM method; camfuse info lists them.")
    ] = "gradcam",
    layers: options.Layers = None,
    normalize: Annotated[
        str,
        typer.Option(
            metavar="layer|global|both",
            help="Show each map by its own range, by the range over all layers, or both.",
        ),
    ] = "both",
    target: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Index or name; the model's first choice by default."),
    ] = None,
    fps: Annotated[
        str, typer.Option(metavar="RATE", help="Layers per second: 5, 24000/1001.")
    ] = "5",
    size: Annotated[int, typer.Option(metavar="PIXELS", help="Longer side of a panel.")] = 448,
    colormap: Annotated[
        str, typer.Option(metavar="NAME", help="turbo, jet, viridis, magma, or matplotlib's.")
    ] = "turbo",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The video; by default IMAGE.mp4 in this folder."),
    ] = None,
    save_maps: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the raw maps, as .safetensors."),
    ] = None,
    device: options.Device = "cpu",
    ffmpeg: options.Ffmpeg = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make a video of where a model looks in a photograph: one frame per layer."""
    job = Job(
        model=model,
        out=out or Path(f"{image.stem}.mp4"),
        weights=weights,
        method=method,
        layers=tuple(options.parse_layers(layers)),
        normalize=normalize,
        target=target,
        fps=options.parse_fps(fps),
        size=size,
        colormap=colormap,
        save_maps=save_maps,
        device=device,
        ffmpeg=ffmpeg,
    )
    report = job.run(image)
    print(json_text(report) if as_json else summary(report))
