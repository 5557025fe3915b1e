"""The main job: from a model and a photograph to a layer-by-layer video of where it looks."""

from __future__ import annotations

import difflib
import math
import operator
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from PIL import Image
from torch import nn

from camfuse.canvas import Canvas
from camfuse.collect import OnNonfinite
from camfuse.colormaps import color_table
from camfuse.explain import layer_cams
from camfuse.images import ImageSource, Preprocessing, read_image
from camfuse.layers import LayerSelection
from camfuse.methods import find_method
from camfuse.models import LoadedModel, load_model
from camfuse.render import render
from camfuse.stack import CamStack
from camfuse.storage import save_stack, written_whole
from camfuse.targets import Target
from camfuse.video import VideoWriter, check_output, exact_fps, find_ffmpeg

Normalize = Literal["layer", "global", "both"]
Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps there are."""


@dataclass(frozen=True, eq=False)
class AnimationResult:
    """A finished video and what it shows.

    Attributes:
        path: The video.
        frames: Number of frames, one per shown layer.
        model: The model's spec; the name of its class where it was given as a module.
        weights: Which weights it has, in words.
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
    model: str
    weights: str
    stack: CamStack
    method: str
    normalize: Normalize
    classes: Sequence[str] | None
    preprocessing: Preprocessing
    seconds: dict[str, float]
    bytes_written: int

    def to_dict(self) -> dict[str, Any]:
        """Everything but the maps, as plain JSON values; what ``camfuse animate --json`` prints.

        ``None`` stands for a number that is not finite.
        """
        stack = self.stack
        index = int(stack.targets[0, 0])
        return {
            "path": str(self.path),
            "frames": self.frames,
            "model": self.model,
            "weights": self.weights,
            "method": self.method,
            "normalize": self.normalize,
            "target": {
                "index": index if index >= 0 else None,
                "name": _class_name(self.classes, index),
                "probability": _finite(stack.probabilities[0, 0]),
                "score": _finite(stack.scores[0, 0]),
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
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] | None = None,
    method: str = "gradcam",
    layers: LayerSelection = "leaf",
    normalize: Normalize = "both",
    target: Target | str = None,
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
        weights: Of a model spec only; see :func:`camfuse.load_model`.
        device: Likewise; the CPU by default. A module stays where it is.
        preprocessing: What the model expects; that of the spec, or else ImageNet's at 224 x 224.
        classes: Class names by index; those of the spec by default.
        method: The CAM method.
        layers: Which layers; see :func:`camfuse.layer_cams`.
        normalize: Panels: each map by its own range, by the range over all layers, or both.
        target: The score to explain; see :func:`camfuse.layer_cams`. Or the name of a class, upper
            and lower case alike.
        fps: Frames (layers) per second.
        size: Longer side of a panel in pixels.
        colormap: Name of the colour map.
        save_maps: Also writes the raw maps to this ``.safetensors`` file.
        ffmpeg: Path of the ffmpeg to use.
        on_nonfinite: See :func:`camfuse.layer_cams`.
        progress: Called as work goes on.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument does not fit. All that needs no model is checked before it is
            loaded.
        OSError: If a folder cannot be written to.
        camfuse.video.VideoError: If there is no ffmpeg, or it fails.

    Whatever goes wrong, no file is left, and one that was there before is as it was.
    """
    _check_model(model, weights, device, preprocessing, classes)
    if normalize not in get_args(Normalize):
        raise ValueError(f"normalize: expected 'layer', 'global' or 'both', got {normalize!r}")
    if on_nonfinite not in get_args(OnNonfinite):
        raise ValueError(f"on_nonfinite: expected 'raise' or 'skip', got {on_nonfinite!r}")
    _expect("method", method, str)
    find_method(method)
    _expect("colormap", colormap, str)
    color_table(colormap)
    exact_fps(fps)
    check_output(Path(out), name="out")
    if save_maps is not None:
        check_output(Path(save_maps), name="save_maps", endings=(".safetensors",))
    find_ffmpeg(ffmpeg)
    tell = progress or (lambda stage, done, total: None)
    clock = _Clock(tell)
    with clock.stage("image"):
        photograph = read_image(image)
    _check_size(size, photograph)
    with clock.stage("model"):
        loaded = _loaded(model, weights, device).with_(preprocessing=preprocessing, classes=classes)
        if isinstance(target, str):
            target = _class_index(target, loaded.classes)
    with clock.stage("maps"):
        place = next((p.device for p in loaded.module.parameters()), None)
        inputs = loaded.preprocessing(photograph).to(place)
        stack = layer_cams(
            loaded.module,
            inputs,
            method=method,
            layers=layers,
            target=target,
            on_nonfinite=on_nonfinite,
        )
    shown = stack.shown()
    written = 0
    with ExitStack() as until_all_is_done:
        if save_maps is not None:
            with clock.stage("save"):
                maps = until_all_is_done.enter_context(written_whole(Path(save_maps)))
                written += save_stack(stack, maps).stat().st_size
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
        written += writer.bytes_written
    return AnimationResult(
        path=Path(out),
        frames=len(frames),
        model=loaded.spec,
        weights=loaded.weights,
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


def _check_model(
    model: object, weights: object, device: object, preprocessing: object, classes: object
) -> None:
    _expect("model", model, str, nn.Module, LoadedModel)
    for name, value in (("weights", weights), ("device", device)):
        if value is not None and not isinstance(model, str):
            raise ValueError(f"{name}: expected None with a model already made, got {value!r}")
    _expect("preprocessing", preprocessing, Preprocessing, type(None))
    if isinstance(classes, str):  # a sequence, but of letters
        raise TypeError(f"classes: expected a sequence of names, got {classes!r}")
    _expect("classes", classes, Sequence, type(None))


def _check_size(size: int, photograph: Image.Image) -> None:
    try:
        operator.index(size)
    except TypeError:
        raise TypeError(f"size: expected a whole number of pixels, got {size!r}") from None
    Canvas.fit((photograph.height, photograph.width), size=size)


def _expect(name: str, value: object, *types: type) -> None:
    if not isinstance(value, types):
        expected = " or ".join("None" if one is type(None) else one.__name__ for one in types)
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")


def _loaded(
    model: str | nn.Module | LoadedModel,
    weights: str | Path | None,
    device: str | torch.device | None,
) -> LoadedModel:
    if isinstance(model, str):
        return load_model(model, weights=weights, device=device or "cpu")
    return LoadedModel.of(model) if isinstance(model, nn.Module) else model


def _class_index(name: str, classes: Sequence[str] | None) -> int:
    if not classes:
        raise ValueError(
            f"target: the model's class names are not known; expected an index, got {name!r}"
        )
    lowered = [one.lower() for one in classes]
    found = [index for index, one in enumerate(lowered) if one == name.lower()]
    if len(found) > 1:
        raise ValueError(
            f"target: {name!r} is the name of classes {', '.join(map(str, found))}; pass an index"
        )
    if not found:
        close = difflib.get_close_matches(name.lower(), lowered, n=3)
        names = ", ".join(classes[lowered.index(one)] for one in close)
        raise ValueError(
            f"target: no class is called {name!r}" + (f"; close: {names}" if close else "")
        )
    return found[0]


def _finite(value: torch.Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


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
