"""Many photographs, one video each: batched passes, while earlier videos are made beside them."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, Self

import torch
from PIL import Image

from camfuse.animate import Clock, Model, check_models, ready_model, style_for
from camfuse.checks import expect, expect_whole
from camfuse.devices import current_stream, on_stream
from camfuse.formats import FORMATS, one_of
from camfuse.images import ImageError, Preprocessing, read_image
from camfuse.metrics.ybroad_result import YbRoad
from camfuse.models import LoadedModel
from camfuse.question import Question
from camfuse.render_video import render_video
from camfuse.result import AnimationResult, Explained
from camfuse.stack import CamStack
from camfuse.storage import save_stack, written_whole
from camfuse.style import VideoStyle
from camfuse.video import check_output

OnError = Callable[[Path, Exception], None]
"""Told of a photograph that no video could be made of, and why."""

_VIDEOS_AT_ONCE = 2  # each has an ffmpeg process of its own
IMAGE_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def animate_images(
    model: Model,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    question: Question | None = None,
    style: VideoStyle | None = None,
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] | None = None,
    ending: str = ".mp4",
    batch: int = 8,
    save_maps: str | os.PathLike[str] | None = None,
    ffmpeg: str | Path | None = None,
    on_error: OnError | None = None,
) -> Iterator[AnimationResult]:
    """Makes a video of each photograph, named after it, in the order given.

    The model sees several photographs at once, and while it looks at the next ones, the videos of
    those before are rendered and encoded. Nothing is done before the first result is asked for, but
    all arguments are checked at once.

    Args:
        model: As for :func:`camfuse.animate`.
        images: Paths, or a folder, whose images (by their endings) are taken in order of name.
        folder: Where the videos go; must exist.
        question: Which maps: methods, layers, target; the same for all photographs.
        style: How the videos look.
        weights: As for :func:`camfuse.animate`.
        device: As for :func:`camfuse.animate`.
        preprocessing: As for :func:`camfuse.animate`.
        classes: As for :func:`camfuse.animate`.
        ending: Of the videos; chooses their format.
        batch: Photographs the model sees at once.
        save_maps: Also writes each photograph's raw maps into this folder, as ``.safetensors``.
        ffmpeg: As for :func:`camfuse.animate`.
        on_error: Told of each photograph that failed, in place of the exception; the others go on.

    Returns:
        An iterator over the results; ``seconds`` of each holds the photograph's share of its batch.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument does not fit, or a video has not a place of its own.
        OSError: If a folder cannot be written to.
    """
    expect("question", question, Question, type(None))
    expect("style", style, VideoStyle, type(None))
    question, style = question or Question(), style or VideoStyle()
    check_models([model], weights, device, preprocessing, classes)
    question.check(per_sample=False)
    expect_whole("batch", batch, at_least=1)
    if ending not in FORMATS:
        raise ValueError(f"ending: expected {one_of(FORMATS)}, got {ending!r}")
    maps_folder = None if save_maps is None else Path(save_maps)
    for name, place in (("folder", Path(folder)), ("save_maps", maps_folder)):
        if place is not None and not place.is_dir():
            raise ValueError(f"{name}: expected an existing folder, got {str(place)!r}")
    paths = find_images(images)
    outs = video_names(paths, Path(folder), ending)
    style = style_for(question, style)
    style.check(outs[0], ffmpeg=ffmpeg, series=question.series)
    files = list(outs)
    if maps_folder is not None:
        check_output(_maps_place(maps_folder, outs[0]), name="save_maps", endings=(".safetensors",))
        files += [_maps_place(maps_folder, out) for out in outs]
    _check_places(paths, files)

    def results() -> Iterator[AnimationResult]:
        loaded = ready_model(model, weights, device, preprocessing, classes)
        failed = on_error or _raise
        with _VideoMakers(question, style, ffmpeg, maps_folder, failed) as makers:
            for start in range(0, len(paths), batch):
                group = zip(paths[start : start + batch], outs[start:], strict=False)
                for looked_at in _look_at(loaded, question, list(group), failed):
                    makers.submit(loaded, looked_at)
                    yield from makers.finished(leave=_VIDEOS_AT_ONCE + batch)
            yield from makers.finished()

    return results()


def find_images(images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The paths of photographs: those given, or those in a folder, in order of name.

    Raises:
        ValueError: If there is none, or the folder does not exist.
    """
    if isinstance(images, str | os.PathLike):
        folder = Path(images)
        if not folder.is_dir():
            raise ValueError(f"images: expected a folder or several paths, got {str(folder)!r}")
        paths = sorted(one for one in folder.iterdir() if _is_image(one))
        if not paths:
            raise ValueError(f"images: the folder {str(folder)!r} holds no image")
        return paths
    if not images:
        raise ValueError("images: expected at least one, got none")
    return [Path(one) for one in images]


def _is_image(path: Path) -> bool:
    """By its name; what begins with a dot is some system's or program's own."""
    named = path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".")
    return named and path.is_file()


def _maps_place(folder: Path, video: Path) -> Path:
    return folder / f"{video.stem}.safetensors"


def _check_places(images: Sequence[Path], outs: Sequence[Path]) -> None:
    """Checks that every file to be written has a place of its own."""
    existing = [out for out in outs if out.exists()]
    for out in existing:
        if out.is_dir():
            raise ValueError(f"folder: {str(out)!r} is a folder, where a file should go")
    inputs = {one.resolve() for one in images} if existing else set()
    for out in existing:
        if out.resolve() in inputs:
            raise ValueError(f"folder: {str(out)!r} would replace a photograph")


def video_names(images: Sequence[Path], folder: Path, ending: str) -> list[Path]:
    """A video for each image: ``cat.mp4`` for ``cat.jpg``, or ``cat.jpg.mp4`` beside a ``cat.png``.

    Raises:
        ValueError: If two images have the same name.
    """
    stems = Counter(one.stem for one in images)
    names = [one.name if stems[one.stem] > 1 else one.stem for one in images]
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        same = [str(path) for path, one in zip(images, names, strict=True) if one == name]
        raise ValueError(f"images: {same[0]!r} and {same[1]!r} would become the same video")
    return [folder / f"{one}{ending}" for one in names]


@dataclass(frozen=True, eq=False)
class _LookedAt:
    """A photograph and the maps ``[R, T, 1, h, w]`` of it."""

    path: Path
    out: Path
    image: Image.Image
    stack: CamStack
    road: YbRoad | None
    seconds: dict[str, float]  # its share of the pass, and of what is its own


def _look_at(
    model: LoadedModel,
    question: Question,
    group: Sequence[tuple[Path, Path]],
    failed: OnError,
) -> Iterator[_LookedAt]:
    """One pass over those of a group that can be read."""
    photographs = []
    for path, out in group:
        try:
            photographs.append((path, out, read_image(path)))
        except ImageError as error:
            failed(path, error)
    if photographs:
        yield from _ask(model, question, photographs, failed)


def _ask(
    model: LoadedModel,
    question: Question,
    photographs: Sequence[tuple[Path, Path, Image.Image]],
    failed: OnError,
) -> Iterator[_LookedAt]:
    start = time.perf_counter()
    alone = len(photographs) == 1
    # What is not finite in one photograph must not take a layer from the others.
    asked = question if alone else replace(question, on_nonfinite="raise")
    try:
        stack = asked.ask(model, [image for _, _, image in photographs])
    except FloatingPointError as error:
        if alone:
            failed(photographs[0][0], error)
        else:
            for one in photographs:
                yield from _ask(model, question, [one], failed)
        return
    seconds = (time.perf_counter() - start) / len(photographs)
    for i, (path, out, image) in enumerate(photographs):
        own, road, clock = stack.select(sample=i), None, Clock()
        if question.road:
            try:
                with clock.stage("road"):
                    road = question.score(model, [image], own)
            except FloatingPointError as error:
                failed(path, error)
                continue
        yield _LookedAt(path, out, image, own, road, {"maps": seconds, **clock.seconds})


class _VideoMakers:
    """Threads that render and encode; leaving the block early ends what is under way."""

    def __init__(
        self,
        question: Question,
        style: VideoStyle,
        ffmpeg: str | Path | None,
        maps_folder: Path | None,
        failed: OnError,
    ) -> None:
        self._question, self._style, self._failed = question, style, failed
        self._ffmpeg, self._maps_folder = ffmpeg, maps_folder
        self._pool = ThreadPoolExecutor(_VIDEOS_AT_ONCE, "camfuse-images")
        self._pending: deque[tuple[Path, Future[AnimationResult]]] = deque()
        self._cancelled = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._cancelled.set()
        self._pool.shutdown(cancel_futures=True)

    def submit(self, model: LoadedModel, photograph: _LookedAt) -> None:
        """Have the video of this photograph made."""
        stream = current_stream(photograph.stack.flat.device)
        video = self._pool.submit(self._make, model, photograph, stream)
        self._pending.append((photograph.path, video))

    def finished(self, leave: int = 0) -> Iterator[AnimationResult]:
        """Results that are there, in order, waiting while more than ``leave`` are not."""
        while self._pending and (len(self._pending) > leave or self._pending[0][1].done()):
            path, future = self._pending.popleft()
            try:
                result = future.result()
            except Exception as error:  # all that is done there is this photograph's
                self._failed(path, error)
            else:
                yield result

    def _make(
        self, model: LoadedModel, photograph: _LookedAt, stream: torch.cuda.Stream | None
    ) -> AnimationResult:
        """The video, on the stream that the maps were made on."""
        with on_stream(stream):
            return self._made(model, photograph)

    def _made(self, model: LoadedModel, photograph: _LookedAt) -> AnimationResult:
        clock = Clock(lambda *_: self._stop_if_cancelled())
        written = 0
        explained = Explained.of(
            model, photograph.stack, self._style, self._question, photograph.road
        )
        with ExitStack() as until_all_is_done:
            if self._maps_folder:
                path = _maps_place(self._maps_folder, photograph.out)
                maps = until_all_is_done.enter_context(written_whole(path))
                written += save_stack(explained.stack, maps).stat().st_size
            with clock.stage("video"):
                video = render_video(
                    explained.shown,
                    photograph.image,
                    photograph.out,
                    style=self._style,
                    ffmpeg=self._ffmpeg,
                    progress=lambda *_: self._stop_if_cancelled(),
                )
        return AnimationResult(
            video=video,
            explained=(explained,),
            style=self._style,
            seconds={**photograph.seconds, **clock.seconds},
            bytes_written=written + video.bytes_written,
        )

    def _stop_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError


def _raise(path: Path, error: Exception) -> NoReturn:
    error.add_note(f"while making the video of {str(path)!r}")
    raise error
