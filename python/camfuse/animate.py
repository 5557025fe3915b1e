"""The main job: from a model and a photograph to a layer-by-layer video of where it looks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import nn

from camfuse.checks import check_not_input, expect
from camfuse.class_names import NamedTarget
from camfuse.collect import OnNonfinite
from camfuse.colormaps import Colormap
from camfuse.formats import Effort
from camfuse.images import ImageSource, Preprocessing, read_image
from camfuse.layers import LayerSelection
from camfuse.models import LoadedModel, load_model
from camfuse.question import Question
from camfuse.render_video import Progress, render_video
from camfuse.result import AnimationResult, Explained, told_apart
from camfuse.storage import save_stack, written_whole
from camfuse.style import Normalize, VideoStyle
from camfuse.thinning import YBROAD
from camfuse.video import check_output

Model = str | nn.Module | LoadedModel
Weights = str | Path | None | Sequence[str | Path | None]


def animate(
    model: Model | Sequence[Model],
    image: ImageSource,
    out: str | os.PathLike[str],
    *,
    weights: Weights = None,
    device: str | torch.device | None = None,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] | None = None,
    method: str | Sequence[str] = "gradcam",
    layers: LayerSelection = "leaf",
    target: NamedTarget = None,
    aug_smooth: bool = False,
    eigen_smooth: bool = False,
    normalize: Normalize = "both",
    size: int = 448,
    colormap: Colormap = "turbo",
    fps: float | Fraction = 5,
    curve: str | None = None,
    keyframes: int | None = None,
    road: bool = False,
    codec: str | None = None,
    crf: int | None = None,
    effort: Effort = "fast",
    save_maps: str | os.PathLike[str] | None = None,
    ffmpeg: str | Path | None = None,
    on_nonfinite: OnNonfinite = "raise",
    max_memory: int | str | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> AnimationResult:
    """Makes the video: one frame per layer, from one forward and one backward pass.

    Several methods or targets are shown side by side, from that same pass. So are several models,
    from a pass each: their layers go by at the same relative depth.

    Args:
        model: A model spec (see :mod:`camfuse.models`), a loaded model, or a module in eval mode;
            or several.
        image: Path, PIL image, array or tensor; see :func:`camfuse.images.read_image`.
        out: The video; its ending chooses the format. It appears once it is complete.
        weights: Of a model spec only; see :func:`camfuse.load_model`. For several models one of
            each, or ``"random"`` for all.
        device: Likewise; the CPU by default. A module stays where it is.
        preprocessing: What the model expects; that of the spec, or else ImageNet's at 224 x 224.
        classes: Class names by index; those of the spec by default.
        method: The CAM method, or several.
        layers: Which layers; see :func:`camfuse.layer_cams`.
        target: The score to explain; see :func:`camfuse.layer_cams`. Or the name of a class, upper
            and lower case alike; several in :class:`camfuse.Each`.
        aug_smooth: Whether maps are averaged over flips and brightness, from six passes; see
            :func:`camfuse.layer_cams`.
        eigen_smooth: Whether maps are the principal component of their terms; likewise.
        normalize: Panels: each map by its own range, by the range over all layers, or both.
        size: Longer side of a panel in pixels.
        colormap: The colour map; see :func:`camfuse.render`.
        fps: Frames (layers) per second.
        curve: A score per layer to draw below the panels; see :func:`camfuse.render`.
        keyframes: Show only this many layers: those whose maps differ most from each other, and
            with ``road`` those that score high; see :func:`camfuse.key_layers`.
        road: Whether every layer is scored by ybROAD (see :func:`camfuse.ybroad`), with one seed of
            noise: it is the curve below the panels unless another is named, and in the report.
            Takes eight passes for each map.
        codec: How frames are compressed, where ``out``'s ending leaves a choice; see
            :mod:`camfuse.formats`.
        crf: Quality in the codec's own numbers; less is better.
        effort: ``"fast"``, or ``"small"`` for a smaller file.
        save_maps: Also writes the raw maps to this ``.safetensors`` file; of one model only.
        ffmpeg: Path of the ffmpeg to use.
        on_nonfinite: See :func:`camfuse.layer_cams`.
        max_memory: See :func:`camfuse.layer_cams`.
        batch_size: See :func:`camfuse.layer_cams`.
        progress: Called as work goes on.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument does not fit. All that needs no model is checked before it is
            loaded.
        MemoryError: If the pass needs more than there is, or than ``max_memory``.
        OSError: If a folder cannot be written to.
        camfuse.VideoError: If there is no ffmpeg, or it fails.

    Whatever goes wrong, no file is left, and one that was there before is as it was.
    """
    models = model if isinstance(model, Sequence) and not isinstance(model, str) else [model]
    return make_animation(
        models,
        image,
        out,
        Question(
            method,
            layers,
            target,
            on_nonfinite,
            max_memory,
            aug_smooth,
            eigen_smooth,
            batch_size,
            road,
        ),
        VideoStyle(normalize, size, colormap, fps, curve, keyframes, codec, crf, effort),
        weights=weights,
        device=device,
        preprocessing=preprocessing,
        classes=classes,
        save_maps=save_maps,
        ffmpeg=ffmpeg,
        progress=progress,
    )


def make_animation(
    models: Sequence[Model],
    image: ImageSource,
    out: str | os.PathLike[str],
    question: Question,
    style: VideoStyle,
    *,
    weights: Weights = None,
    device: str | torch.device | None = None,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] | None = None,
    save_maps: str | os.PathLike[str] | None = None,
    ffmpeg: str | Path | None = None,
    progress: Progress | None = None,
) -> AnimationResult:
    """What :func:`animate` does, its options gathered in a question and a style."""
    weights_of_each = check_models(models, weights, device, preprocessing, classes)
    question.check()
    style = style_for(question, style)
    style.check(out, ffmpeg=ffmpeg, series=question.series)
    if isinstance(image, str | os.PathLike):
        check_not_input(Path(out), [Path(image)])
    if save_maps is not None:
        check_output(Path(save_maps), name="save_maps", endings=(".safetensors",))
        if len(models) > 1:
            raise ValueError(f"save_maps: expected one model, got {len(models)}")
    clock = Clock(progress)
    with clock.stage("image"):
        photograph = read_image(image)
    style.check_size(
        out,
        (photograph.height, photograph.width),
        maps=len(models) * question.maps,
        models=len(models),
    )
    explained = []
    for model, trained in zip(models, weights_of_each, strict=True):
        with clock.stage("model"):
            loaded = ready_model(model, trained, device, preprocessing, classes)
        with clock.stage("maps"):
            stack = question.ask(loaded, [photograph])
        road = None
        if question.road:
            with clock.stage("road"):
                road = question.score(loaded, [photograph], stack, progress)
        explained.append(Explained.of(loaded, stack, style, question, road))
    explained = told_apart(explained)
    written = 0
    with ExitStack() as until_all_is_done:
        if save_maps is not None:
            with clock.stage("save"):
                maps = until_all_is_done.enter_context(written_whole(Path(save_maps)))
                written += save_stack(explained[0].stack, maps).stat().st_size
        with clock.stage("video"):
            video = render_video(
                [one.shown for one in explained],
                photograph,
                out,
                style=style,
                ffmpeg=ffmpeg,
                progress=progress,
            )
    return AnimationResult(
        video=video,
        explained=tuple(explained),
        style=style,
        seconds=clock.seconds,
        bytes_written=written + video.bytes_written,
    )


def check_models(
    models: Sequence[object],
    weights: Weights,
    device: object,
    preprocessing: object,
    classes: Sequence[str] | None,
) -> Sequence[str | Path | None]:
    """Checks the arguments that say which models there are.

    Returns:
        The weights of each model.

    Raises:
        TypeError: If one is of the wrong type.
        ValueError: If there is no model, something is given that a ready model has already, or
            weights do not match the models.
    """
    if not models:
        raise ValueError("model: expected at least one, got none")
    expect("weights", weights, str, Path, Sequence, type(None))
    of_each: list[str | Path | None]
    of_each = [weights] if weights is None or isinstance(weights, str | Path) else list(weights)
    if of_each in ([None], ["random"]):
        of_each *= len(models)
    if len(of_each) != len(models):
        raise ValueError(
            f"weights: expected one for each of {len(models)} models, got {len(of_each)}"
        )
    for model, trained in zip(models, of_each, strict=True):
        expect("model", model, str, nn.Module, LoadedModel)
        for name, value in (("weights", trained), ("device", device)):
            if value is not None and not isinstance(model, str):
                raise ValueError(f"{name}: expected None with a model already made, got {value!r}")
    expect("preprocessing", preprocessing, Preprocessing, type(None))
    if isinstance(classes, str):  # a sequence, but of letters
        raise TypeError(f"classes: expected a sequence of names, got {classes!r}")
    expect("classes", classes, Sequence, type(None))
    for name in classes or ():
        expect("classes", name, str)
    return of_each


def ready_model(
    model: Model,
    weights: str | Path | None,
    device: str | torch.device | None,
    preprocessing: Preprocessing | None,
    classes: Sequence[str] | None,
) -> LoadedModel:
    """The model, loaded if need be, with what the caller knows better."""
    if isinstance(model, str):
        model = load_model(model, weights=weights, device=device or "cpu")
    elif isinstance(model, nn.Module):
        model = LoadedModel.of(model)
    return model.with_(preprocessing=preprocessing, classes=classes)


def style_for(question: Question, style: VideoStyle) -> VideoStyle:
    """The style, with the scores that are asked for as its curve unless it has another."""
    return replace(style, curve=YBROAD) if question.road and style.curve is None else style


class Clock:
    """Wall time by stage."""

    def __init__(self, progress: Progress | None = None) -> None:
        """Tell ``progress`` when a stage begins and ends."""
        self.seconds: dict[str, float] = {}
        self._tell = progress or (lambda stage, done, total: None)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to that of the stage."""
        self._tell(name, 0, 1)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start
        self._tell(name, 1, 1)
