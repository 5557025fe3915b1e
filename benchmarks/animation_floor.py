"""Whole animation to MP4 against its floor: the model's passes, and ffmpeg on ready frames.

The floor is one bare forward and activation-only backward pass without hooks, and then the very
frames of the animation, rendered beforehand, through a pipe into ffmpeg with the same settings.
Both videos are seen to be the same, byte for byte.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import camfuse
from benchmarks.harness import Claim, compare
from benchmarks.models import MODELS, bare_passes, build
from benchmarks.photographs import cat_image
from camfuse.formats import preferred_pixel_format
from camfuse.models import LoadedModel


def run(quick: bool) -> list[Claim]:
    """A claim per model."""
    with tempfile.TemporaryDirectory() as folder:
        return [measured(name, Path(folder), quick) for name in (MODELS[:1] if quick else MODELS)]


def measured(name: str, folder: Path, quick: bool) -> Claim:
    """One model."""
    loaded, photograph = LoadedModel.of(build(name)), cat_image()
    x = loaded.inputs([photograph])
    ours = partial(camfuse.animate, loaded, photograph, folder / "ours.mp4")
    result = ours()
    encode = ready_encoder(result, folder / "floor.mp4")

    def floor() -> None:
        bare_passes(loaded.module, x)
        encode()

    floor()
    if (folder / "ours.mp4").read_bytes() != (folder / "floor.mp4").read_bytes():
        raise AssertionError(f"{name}: expected the same video of both sides")
    pair = compare(ours, floor, quick=quick, seconds=0).inverse
    stages = {f"our_{stage}_ms": 1e3 * seconds for stage, seconds in result.seconds.items()}
    detail = pair.detail("floor", "ours") | stages | {"frames": result.frames}
    print(f"{name}: {pair.ratio:.2f} of the floor", flush=True)
    return Claim(
        "whole animation / passes and encoding of ready frames", name, pair.ratio, "<= 1.15", detail
    )


def ready_encoder(result: camfuse.AnimationResult, out: Path) -> Callable[[], None]:
    """Renders the animation's frames now; what is returned encodes them again."""
    style = result.style
    frames = camfuse.render(
        result.explained[0].shown,
        cat_image(),
        panels=style.panels,
        size=style.size,
        pixel_format=preferred_pixel_format(out, style.codec),
    )
    ready = list(frames)

    def encode() -> None:
        with camfuse.VideoWriter(
            out,
            width=frames.width,
            height=frames.height,
            fps=style.fps,
            pixel_format=frames.pixel_format,
            chapters=frames.titles,
        ) as writer:
            for chunk in ready:
                writer.write(chunk)

    return encode
