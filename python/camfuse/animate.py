"""The main job: from a model and a photograph to a layer-by-layer video of where it looks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from camfuse.collect import OnNonfinite
from camfuse.colormaps import color_table
from camfuse.explain import layer_cams
from camfuse.images import ImageSource, Preprocessing, read_image
from camfuse.layers import LayerSelection
from camfuse.methods import find_method
from camfuse.models import LoadedModel, load_model
from camfuse.render import render
from camfuse.stack import CamStack
from camfuse.storage import save_stack
from camfuse.targets import Target
from camfuse.video import VideoWriter, check_output

Normalize = Literal["layer", "global", "both"]
Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps there are."""


@dataclass(frozen=True, eq=False)
class AnimationResult:
    """A finished video and what it shows.

    Attributes:
        path: The video.
        frames: Number of frames, one per shown layer.
        stack: All captured maps.
        method: The CAM method.
        normalize: The panels shown.
        classes: Class names by index, if known.
        preprocessing: What was done to the photograph before the model saw it.
        seconds: Wall time by stage.
        bytes_written: Size of the video, and of the maps if they were saved.
    """

    path: Path
    frames: int
    stack: CamStack
    method: str
    normalize: Normalize
    classes: Sequence[str] | None
    preprocessing: Preprocessing
    seconds: dict[str, float]
    bytes_written: int

    def to_dict(self) -> dict[str, Any]:
        """Everything but the maps, as plain JSON values; what ``camfuse animate --json`` prints."""
        stack = self.stack
        index = int(stack.targets[0, 0])
        probability = float(stack.probabilities[0, 0])
        return {
            "path": str(self.path),
            "frames": self.frames,
            "model": stack.model,
            "method": self.method,
            "normalize": self.normalize,
            "target": {
                "index": index if index >= 0 else None,
                "name": _class_name(self.classes, index),
                "probability": probability if index >= 0 else None,
                "score": float(stack.scores[0, 0]),
            },
            "layers": [
                {
                    "name": layer.name,
                    "type": layer.type,
                    "shape": list(layer.shape),
                    "degenerate": bool(layer.degenerate),
                }
                for layer in stack.layers
                if layer.shown
            ],
            "skipped": [
                {"name": one.name, "type": one.type, "reason": one.reason} for one in stack.skipped
            ],
            "warnings": list(stack.warnings),
            "preprocessing": self.preprocessing.as_dict(),
            "seconds": self.seconds,
            "bytes_written": self.bytes_written,
        }


def animate(
    model: str | nn.Module | LoadedModel,
    image: ImageSource,
    out: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] | None = None,
    method: str = "gradcam",
    layers: LayerSelection = "leaf",
    normalize: Normalize = "both",
    target: Target = None,
    fps: float | Fraction = 5,
    size: int = 448,
    colormap: str = "turbo",
    save_maps: str | os.PathLike[str] | None = None,
    ffmpeg: str | Path | None = None,
    on_nonfinite: OnNonfinite = "raise",
    progress: Progress | None = None,
) -> AnimationResult:
    """Makes the video: one frame per layer, from one forward and one backward pass.

    Args:
        model: A model spec (see :mod:`camfuse.models`), a loaded model, or a module in eval mode.
        image: Path, PIL image, array or tensor; see :func:`camfuse.images.read_image`.
        out: The video; its ending chooses the format. It appears once it is complete.
        preprocessing: What the model expects; that of the spec, or else ImageNet's at 224 x 224.
        classes: Class names by index; those of the spec by default.
        method: The CAM method.
        layers: Which layers; see :func:`camfuse.layer_cams`.
        normalize: Panels: each map by its own range, by the range over all layers, or both.
        target: The score to explain; see :func:`camfuse.layer_cams`.
        fps: Frames (layers) per second.
        size: Longer side of a panel in pixels.
        colormap: Name of the colour map.
        save_maps: Also writes the raw maps to this ``.safetensors`` file.
        ffmpeg: Path of the ffmpeg to use.
        on_nonfinite: See :func:`camfuse.layer_cams`.
        progress: Called as work goes on.

    Raises:
        ValueError: If an argument does not fit.
        camfuse.video.VideoError: If ffmpeg fails; no file is left.
    """
    if normalize not in get_args(Normalize):
        raise ValueError(f"normalize: expected 'layer', 'global' or 'both', got {normalize!r}")
    check_output(Path(out))
    find_method(method)
    color_table(colormap)
    tell = progress or (lambda stage, done, total: None)
    clock = _Clock(tell)
    with clock.stage("image"):
        photograph = read_image(image)
    with clock.stage("model"):
        loaded = _loaded(model, preprocessing, classes)
    with clock.stage("maps"):
        device = next((p.device for p in loaded.module.parameters()), None)
        inputs = loaded.preprocessing(photograph).to(device)
        stack = layer_cams(
            loaded.module,
            inputs,
            method=method,
            layers=layers,
            target=target,
            on_nonfinite=on_nonfinite,
        )
    shown = stack.shown()
    with clock.stage("video"):
        frames = render(
            shown,
            photograph,
            panels=_panels(normalize),
            size=size,
            colormap=colormap,
            pixel_format="i420",
            title=_title(loaded, stack, method),
        )
        with VideoWriter(
            out,
            width=frames.width,
            height=frames.height,
            fps=fps,
            pixel_format="i420",
            ffmpeg=ffmpeg,
        ) as writer:
            for chunk in frames:
                writer.write(chunk)
                tell("video", writer.frames_written, len(frames))
    written = writer.bytes_written
    if save_maps is not None:
        with clock.stage("save"):
            written += save_stack(stack, save_maps).stat().st_size
    return AnimationResult(
        path=Path(out),
        frames=len(frames),
        stack=stack,
        method=method,
        normalize=normalize,
        classes=loaded.classes,
        preprocessing=loaded.preprocessing,
        seconds=clock.seconds,
        bytes_written=written,
    )


class _Clock:
    """Wall time by stage."""

    def __init__(self, tell: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._tell = tell

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._tell(name, 0, 1)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
        self._tell(name, 1, 1)


def _loaded(
    model: str | nn.Module | LoadedModel,
    preprocessing: Preprocessing | None,
    classes: Sequence[str] | None,
) -> LoadedModel:
    if isinstance(model, str):
        model = load_model(model)
    if isinstance(model, nn.Module):
        model = LoadedModel.of(model)
    return model.with_(preprocessing=preprocessing, classes=classes)


def _panels(normalize: Normalize) -> tuple[Literal["source", "layer", "global"], ...]:
    return ("source", "layer", "global") if normalize == "both" else ("source", normalize)


def _title(model: LoadedModel, stack: CamStack, method: str) -> str:
    index = int(stack.targets[0, 0])
    score = f"score {float(stack.scores[0, 0]):.3g}"
    if index >= 0:
        name = _class_name(model.classes, index) or f"class {index}"
        score = f"{name} {float(stack.probabilities[0, 0]):.1%}"
    return f"{model.spec} · {method} · {score}"


def _class_name(classes: Sequence[str] | None, index: int) -> str | None:
    return classes[index] if classes is not None and 0 <= index < len(classes) else None
