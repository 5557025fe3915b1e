"""``camfuse animate``: videos of where a model looks in photographs, layer by layer."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camfuse.cli import options
from camfuse.cli.folders import made_folder
from camfuse.cli.progress import at_work
from camfuse.cli.report import json_text, one_line, summary

if TYPE_CHECKING:
    from camfuse.question import Question
    from camfuse.render_video import Progress
    from camfuse.style import VideoStyle


def animate(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            help="The photograph; or several, or a folder of them, for a video each.",
            show_default=False,
        ),
    ],
    model: options.Models,
    weights: options.WeightsOfEach = None,
    method: options.Methods = None,
    layers: options.Layers = None,
    target: options.Targets = None,
    aug_smooth: options.AugSmooth = False,
    eigen_smooth: options.EigenSmooth = False,
    normalize: options.Normalize = "both",
    size: options.Size = 448,
    colormap: options.Colormap = "turbo",
    fps: options.Fps = "5",
    curve: options.Curve = None,
    keyframes: options.Keyframes = None,
    road: options.Road = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The video: .mp4, .webm, .mkv, .gif or .webp; by default IMAGE.mp4 in this "
            "folder. For several photographs, the folder of the videos; made if need be.",
        ),
    ] = None,
    ending: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="mp4|webm|mkv|gif|webp",
            help="Of videos that are named after their photograph.",
            autocompletion=options.completes(options.FORMATS),
        ),
    ] = "mp4",
    codec: options.Codec = None,
    crf: options.Crf = None,
    effort: options.Effort = "fast",
    save_maps: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the raw maps, as .safetensors; for several photographs, the folder "
            "of those files.",
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option(metavar="N", help="Photographs the model sees at once.")
    ] = 8,
    batch_size: options.BatchSize = 32,
    max_memory: options.MaxMemory = None,
    device: options.Device = "cpu",
    ffmpeg: options.Ffmpeg = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make a video of where a model looks in a photograph: one frame per layer."""
    rate = options.parse_fps(fps)
    with at_work() as progress:
        from camfuse.animate import make_animation
        from camfuse.question import Question
        from camfuse.style import VideoStyle

        ending = options.parse_format(ending)
        question = Question(
            method=method or ["gradcam"],
            layers=options.parse_layers(layers),
            target=options.parse_target(target),
            max_memory=max_memory,
            aug_smooth=aug_smooth,
            eigen_smooth=eigen_smooth,
            batch_size=batch_size,
            road=road,
        )
        style = VideoStyle(
            normalize=normalize,  # type: ignore[arg-type]  # the style checks its choices
            size=size,
            colormap=colormap,
            fps=rate,
            curve=curve,
            keyframes=keyframes,
            codec=codec,
            crf=crf,
            effort=effort,  # type: ignore[arg-type]
        )
        if len(images) == 1 and not images[0].is_dir():
            result = make_animation(
                model,
                images[0],
                out or Path(f"{images[0].stem}{ending}"),
                question,
                style,
                weights=weights,
                device=device,
                save_maps=save_maps,
                ffmpeg=ffmpeg,
                progress=progress,
            )
            report = result.to_dict()
        else:
            report = _animate_several(
                model,
                images,
                out or Path(),
                question,
                style,
                weights=weights,
                device=device,
                ending=ending,
                save_maps=save_maps,
                batch=batch,
                ffmpeg=ffmpeg,
                progress=progress,
            )
    report = {"version": version("camfuse"), **report}
    if as_json:
        print(json_text(report))
    else:
        print("\n".join(map(summary, report.get("videos", [report]))))
    if report.get("failed"):
        count = len(report["failed"]) + len(report["videos"])
        raise RuntimeError(f"{len(report['failed'])} of {count} photographs failed")


def _animate_several(
    models: list[str],
    images: list[Path],
    out: Path,
    question: Question,
    style: VideoStyle,
    *,
    weights: list[str] | None,
    device: str,
    ending: str,
    save_maps: Path | None,
    batch: int,
    ffmpeg: Path | None,
    progress: Progress | None,
) -> dict[str, Any]:
    """A video of each photograph; the report of all of them."""
    from camfuse.animate_images import animate_images, find_images
    from camfuse.formats import FORMATS

    for option, folder, endings in (
        ("--out", out, FORMATS),
        ("--save-maps", save_maps, (".safetensors",)),
    ):
        if folder and folder.suffix.lower() in endings and not folder.is_dir():
            raise ValueError(
                f"{option}: expected a folder for several photographs, got {str(folder)!r}"
            )
    if len(models) > 1 or len(weights or ()) > 1:
        raise ValueError("--model: expected one model for several photographs")
    paths = find_images(images[0] if len(images) == 1 else images)
    videos: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []

    def tell() -> None:
        if progress:
            progress("videos", len(videos) + len(failed), len(paths))

    def on_error(path: Path, error: Exception) -> None:
        message = one_line(error)
        failed.append({"image": str(path), "error": message})
        print(f"camfuse: error: {path}: {message}", file=sys.stderr)
        tell()

    tell()
    with made_folder(out), made_folder(save_maps or out, "--save-maps"):
        for result in animate_images(
            models[0],
            paths,
            out,
            question=question,
            style=style,
            weights=weights[0] if weights else None,
            device=device,
            ending=ending,
            batch=batch,
            save_maps=save_maps,
            ffmpeg=ffmpeg,
            on_error=on_error,
        ):
            videos.append(result.to_dict())
            tell()
    return {"videos": videos, "failed": failed}
