"""Raw frames in, a finished video file out: a pipe into an ffmpeg process that we own.

The file appears under its name only once it is complete. Whatever goes wrong before that (ffmpeg
dies, the caller raises, Ctrl-C), the process is ended and the unfinished file is removed.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import weakref
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from camfuse.encoder import Encoder, VideoError, find_ffmpeg

__all__ = ["Frames", "PixelFormat", "VideoError", "VideoWriter", "find_ffmpeg"]

PixelFormat: TypeAlias = Literal["i420", "rgb24"]
Frames: TypeAlias = Tensor | npt.NDArray[np.uint8] | memoryview

_MAX_FPS = 1000
_MIN_SIDE = 16  # FFV1 in ffmpeg 5 silently spoils frames of a few pixels

_BT709 = {
    "color_range": "tv",
    "colorspace": "bt709",
    "color_primaries": "bt709",
    "color_trc": "bt709",
}
# Left alone, ffmpeg would convert RGB with BT.601's matrix, and recent versions would drop the tags
# that the RGB frames lack.
_RGB_TO_BT709 = (
    "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int,format=yuv420p,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)


def check_output(path: Path, *, name: str = "path", endings: Sequence[str] | None = None) -> None:
    """Check all of ``path`` that can be known before there is anything to write.

    Args:
        path: a file to be made or replaced.
        name: what the caller's argument is called.
        endings: the endings it may have; by default those of videos.

    Raises:
        ValueError: it has another ending, it is a folder, or its folder does not exist.
        OSError: its folder cannot be written to.
    """
    endings = endings or tuple(_FORMATS)
    if path.suffix.lower() not in endings:
        raise ValueError(f"{name} must end in {' or '.join(endings)}, got {str(path)!r}")
    if path.is_dir():
        raise ValueError(f"{name} must be a file, got the folder {str(path)!r}")
    folder = path.parent
    if not folder.is_dir():
        raise ValueError(f"the folder of {name} does not exist: {str(folder)!r}")
    try:  # a file without a name: permissions alone do not tell, nor do they count for root
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise type(error)(
            f"{name}: cannot write to the folder {str(folder)!r}: {error.strerror}"
        ) from error


def exact_fps(fps: Fraction | float) -> Fraction:
    """``fps`` as a fraction; a float becomes the nearest with a denominator of at most 1001.

    Raises:
        ValueError: it is no number in (0, 1000].
    """
    try:
        fraction = Fraction(fps)
    except (TypeError, ValueError, OverflowError):  # NaN is a ValueError, infinity an overflow
        raise ValueError(f"fps must be a finite number, got {fps!r}") from None
    if isinstance(fps, float):
        fraction = fraction.limit_denominator(1001)
    if not 0 < fraction <= _MAX_FPS:
        raise ValueError(f"fps must lie in (0, {_MAX_FPS}], got {fps}")
    return fraction


class VideoWriter:
    """Encodes raw frames into ``path``; the file's ending chooses the format.

    ``.mp4`` is H.264 High, yuv420p, BT.709 (limited range), ready for streaming. ``.mkv`` is FFV1,
    lossless: rgb24 frames come back exactly as RGB, i420 frames exactly as yuv420p.

    Use as a context manager. One thread feeds ffmpeg; :meth:`write` hands frames over without
    copying them and waits only while its short queue is full. An error of ffmpeg is raised by the
    next :meth:`write` or by :meth:`close`. Leaving the ``with`` block by an exception, or
    forgetting the writer, ends ffmpeg and leaves no file. Not to be shared between threads.

    Attributes:
        path: where the video will be.
        frame_bytes: size of one frame, in bytes.
        frames_written: frames handed over so far.
        bytes_written: size of the finished file in bytes; 0 until :meth:`close` has returned.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        width: int,
        height: int,
        fps: Fraction | float,
        pixel_format: PixelFormat,
        ffmpeg: str | Path | None = None,
        preset: str = "ultrafast",
        crf: int = 20,
    ) -> None:
        """Check every argument, then start ffmpeg.

        Args:
            path: the video file; replaced if it exists. Its folder must exist.
            width: width of a frame, in pixels, at least 16; even, unless rgb24 goes into ``.mkv``.
            height: height of a frame, in pixels; likewise.
            fps: frames per second, in (0, 1000]. Kept as an exact fraction; a float becomes the
                nearest one with a denominator of at most 1001.
            pixel_format: ``"i420"`` (planes Y, U, V; BT.709, limited range) or ``"rgb24"``.
            ffmpeg: the executable to run; see :func:`find_ffmpeg`.
            preset: x264's preset (``.mp4`` only).
            crf: x264's constant rate factor (``.mp4`` only), 1 (best) to 51.

        Raises:
            ValueError: an argument is wrong, or the folder of ``path`` does not exist.
            OSError: the folder of ``path`` cannot be written to.
            VideoError: there is no ffmpeg.
        """
        self.path = Path(path)
        check_output(self.path)
        if pixel_format not in ("i420", "rgb24"):
            raise ValueError(f"pixel_format must be 'i420' or 'rgb24', got {pixel_format!r}")
        if not 1 <= crf <= 51:
            raise ValueError(f"crf must lie in [1, 51], got {crf}")
        even = pixel_format == "i420" or self.path.suffix.lower() == ".mp4"
        _check_size(width, height, even=even)
        self.frame_bytes = width * height * 3 // (2 if pixel_format == "i420" else 1)
        self._frame_shapes: list[tuple[int, ...]] = [(self.frame_bytes,)]
        if pixel_format == "rgb24":
            self._frame_shapes.append((height, width, 3))
        self.frames_written = 0
        self.bytes_written = 0
        self._closed = False

        # A name of our own: one made from the video's could exceed the file system's limit.
        unfinished = self.path.with_name(f".camfuse-{secrets.token_hex(8)}.tmp")
        command = _command(
            find_ffmpeg(ffmpeg),
            pixel_format,
            (width, height),
            exact_fps(fps),
            f"file:{unfinished}",
            _FORMATS[self.path.suffix.lower()](pixel_format, preset, crf),
        )
        self._encoder = Encoder(command, unfinished, self.path)
        # Runs when the writer is collected and when the interpreter exits, so that a forgotten or
        # doubly interrupted writer leaves nothing behind either.
        weakref.finalize(self, self._encoder.abort)
        self._encoder.start()

    def write(self, frames: Frames) -> None:
        """Hand over one or several frames; wait only while the queue is full.

        Args:
            frames: uint8; ``[bytes]`` or ``[N, bytes]`` for either pixel format, and for rgb24
                ``[H, W, 3]`` or ``[N, H, W, 3]`` as well. Must not be changed afterwards: the
                memory itself is read later. Copied only if not contiguous or not on the CPU.

        Raises:
            ValueError: wrong dtype or shape, or the writer is closed.
            VideoError: ffmpeg has failed.
        """
        if self._closed:
            raise ValueError(f"write to a closed VideoWriter of {str(self.path)!r}")
        array = _as_array(frames)
        if array.dtype != np.uint8:
            raise ValueError(f"frames must be uint8, got {array.dtype}")
        if array.shape not in self._frame_shapes and array.shape[1:] not in self._frame_shapes:
            expected = " or ".join(
                f"{shape} or (N, {str(shape)[1:]}" for shape in self._frame_shapes
            )
            raise ValueError(f"frames must have the shape {expected}, got {array.shape}")
        if array.size:
            self._encoder.put(np.ascontiguousarray(array).data.cast("B"))
            self.frames_written += array.size // self.frame_bytes

    def close(self) -> None:
        """Wait for ffmpeg to finish and move the video to its place; again: does nothing.

        Raises:
            VideoError: ffmpeg has failed, or no frame was written. There is then no file.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if not self.frames_written:
                raise VideoError(f"no frame was written to {str(self.path)!r}")
            self._encoder.finish()
            self.bytes_written = self.path.stat().st_size
        except BaseException:
            self._encoder.abort()
            raise

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close after a clean block; end ffmpeg and remove the unfinished file after any other."""
        if kind is None:
            self.close()
        else:
            self._closed = True
            self._encoder.abort()


def _command(
    executable: str,
    pixel_format: PixelFormat,
    size: tuple[int, int],
    fps: Fraction,
    output: str,
    options: dict[str, Any],
) -> list[str]:
    import ffmpeg  # here, since it takes 40 ms

    i420 = pixel_format == "i420"
    source = ffmpeg.input(
        "pipe:0",
        format="rawvideo",
        pixel_format="yuv420p" if i420 else "rgb24",
        video_size=size,
        framerate=fps,
        **(_BT709 if i420 else {}),
    )
    # Without -xerror, ffmpeg 5 reports success when the disk is full at the very end.
    start = [executable, "-nostdin", "-xerror", "-loglevel", "warning", "-nostats"]
    command: list[str] = source.output(output, **options).compile(start, overwrite_output=True)
    return command


def _mp4(pixel_format: PixelFormat, preset: str, crf: int) -> dict[str, Any]:
    """H.264 High: asked for, as "ultrafast" leaves out the 8x8 transform that makes it so."""
    options = {"vcodec": "libx264", "preset": preset, "crf": crf, "8x8dct": 1, **_BT709}
    if pixel_format == "rgb24":
        options["vf"] = _RGB_TO_BT709
    return {"format": "mp4", "pix_fmt": "yuv420p", "movflags": "+faststart", **options}


def _mkv(pixel_format: PixelFormat, preset: str, crf: int) -> dict[str, Any]:
    """FFV1, whose 8-bit RGB is bgr0."""
    colour = {"pix_fmt": "yuv420p", **_BT709} if pixel_format == "i420" else {"pix_fmt": "bgr0"}
    return {"format": "matroska", "vcodec": "ffv1", "level": 3, "g": 1, **colour}


# File ending -> ffmpeg's output options for (pixel format, preset, crf).
_FORMATS: dict[str, Callable[[PixelFormat, str, int], dict[str, Any]]] = {
    ".mp4": _mp4,
    ".mkv": _mkv,
}


def _as_array(frames: Frames) -> npt.NDArray[Any]:
    if isinstance(frames, Tensor):
        if frames.dtype is not torch.uint8:  # NumPy lacks some of torch's types
            raise ValueError(f"frames must be uint8, got {frames.dtype}")
        return frames.detach().cpu().numpy()
    if isinstance(frames, np.ndarray):
        return frames
    try:
        return np.asarray(memoryview(frames))
    except TypeError:
        raise ValueError(
            f"frames must be a tensor, an array or a buffer, got {type(frames).__name__}"
        ) from None


def _check_size(width: int, height: int, *, even: bool) -> None:
    for name, value in (("width", width), ("height", height)):
        if value < _MIN_SIDE:
            raise ValueError(f"{name} must be at least {_MIN_SIDE}, got {value}")
        if even and value % 2:
            raise ValueError(f"{name} must be even for yuv420p, got {value}")
