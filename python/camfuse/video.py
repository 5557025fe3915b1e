"""Raw frames in, a finished video file out: a pipe into an ffmpeg process that we own.

The file appears under its name only once it is complete. Whatever goes wrong before that (ffmpeg
dies, the caller raises, Ctrl-C), the process is ended and the unfinished file is removed.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import weakref
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from camfuse.chapters import chapter_metadata
from camfuse.encoder import METADATA, Encoder, VideoError
from camfuse.ffmpeg_probe import find_ffmpeg
from camfuse.formats import BT709, FORMATS, Effort, PixelFormat, choose, one_of

__all__ = [
    "Effort",
    "Frames",
    "PixelFormat",
    "VideoError",
    "VideoWriter",
    "check_output",
    "exact_fps",
    "find_ffmpeg",
]

Frames: TypeAlias = Tensor | npt.NDArray[np.uint8] | memoryview

_MAX_FPS = 1000
_MAX_TERM = 2**31 - 1  # of a fraction in ffmpeg


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
    endings = endings or tuple(FORMATS)
    if path.suffix.lower() not in endings:
        raise ValueError(f"{name} must end in {one_of(endings)}, got {str(path)!r}")
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
        ValueError: it is no number in (0, 1000], or too fine a fraction for ffmpeg.
    """
    try:
        fraction = Fraction(fps)
    except (TypeError, ValueError, OverflowError):  # NaN is a ValueError, infinity an overflow
        raise ValueError(f"fps must be a finite number, got {fps!r}") from None
    if isinstance(fps, float):
        fraction = fraction.limit_denominator(1001)
    if not 0 < fraction <= _MAX_FPS:
        raise ValueError(f"fps must lie in (0, {_MAX_FPS}], got {fps}")
    if max(fraction.numerator, fraction.denominator) > _MAX_TERM:
        raise ValueError(f"fps must be a fraction of numbers up to {_MAX_TERM}, got {fps}")
    return fraction


class VideoWriter:
    """Encodes raw frames into ``path``; the file's ending chooses the format.

    ========= ======================== ==========================================================
    ending    codecs, default first    what comes out
    ========= ======================== ==========================================================
    ``.mp4``  h264, av1                ready for streaming
    ``.webm`` vp9, av1
    ``.mkv``  ffv1, h264, vp9, av1     FFV1 is lossless: rgb24 frames come back exactly as RGB,
                                       others exactly as yuv420p
    ``.gif``  gif                      loops for ever; a palette of 256 colours for each frame
    ``.webp`` webp                     loops for ever; lossy, quality 90
    ========= ======================== ==========================================================

    All but GIF and WebP (and FFV1 of rgb24) are yuv420p in BT.709, limited range, and say so. H.264
    is High profile, encoded by NVENC where that really opens, else by x264. A GIF counts
    hundredths of a second: at 30 fps its frames last 3, 3 and 4 of them. A WebP counts thousandths.
    GIF and WebP of a single frame are plain pictures.

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
        codec: str | None = None,
        crf: int | None = None,
        effort: Effort = "fast",
        chapters: Sequence[str] | None = None,
        ffmpeg: str | Path | None = None,
    ) -> None:
        """Check every argument, then start ffmpeg.

        Args:
            path: the video file; replaced if it exists. Its folder must exist.
            width: width of a frame, in pixels, at least 16; even, unless rgb24 goes into FFV1, GIF
                or WebP. At most 16383 in WebP; the other limits are in :mod:`camfuse.formats`.
            height: height of a frame, in pixels; likewise.
            fps: frames per second, in (0, 1000]; at most 50 in GIF. Kept as an exact fraction; a
                float becomes the nearest one with a denominator of at most 1001.
            pixel_format: ``"i420"`` (planes Y, U, V) or ``"nv12"`` (Y, then U and V in turn), both
                BT.709 in limited range, or ``"rgb24"``. What suits the file best is told by
                :func:`camfuse.formats.preferred_pixel_format`.
            codec: one that the ending allows; by default its first.
            crf: quality factor where the codec has one: 1 (best) to 51 for h264, by default 23; 0
                to 63 for vp9 and av1, by default 20.
            effort: ``"fast"`` encodes as fast as it can, ``"small"`` takes longer for a smaller
                file.
            chapters: a title for each frame, which becomes a chapter; exactly as many as frames
                will be written. Line breaks and control characters become spaces. Not in GIF and
                WebP.
            ffmpeg: the executable to run; see :func:`find_ffmpeg`.

        Raises:
            ValueError: an argument is wrong, or the folder of ``path`` does not exist.
            OSError: the folder of ``path`` cannot be written to.
            VideoError: there is no ffmpeg, or it has no encoder for the codec.
        """
        self.path = Path(path)
        check_output(self.path)
        rate = exact_fps(fps)
        metadata = b"" if chapters is None else chapter_metadata(chapters, rate)
        self._chapters = None if chapters is None else len(chapters)
        executable, options = choose(
            self.path,
            codec=codec,
            crf=crf,
            effort=effort,
            pixel_format=pixel_format,
            width=width,
            height=height,
            fps=rate,
            chapters=chapters is not None,
            ffmpeg=ffmpeg,
        )
        rgb = pixel_format == "rgb24"
        self.frame_bytes = width * height * 3 // (1 if rgb else 2)
        self._frame_shapes: list[tuple[int, ...]] = [(self.frame_bytes,)]
        if rgb:
            self._frame_shapes.append((height, width, 3))
        self.frames_written = 0
        self.bytes_written = 0
        self._closed = False

        # A name of our own: one made from the video's could exceed the file system's limit.
        unfinished = self.path.with_name(f".camfuse-{secrets.token_hex(8)}.tmp")
        command = _command(executable, pixel_format, (width, height), rate, unfinished, options)
        if chapters is not None:
            after_frames = command.index("pipe:0") + 1
            command[after_frames:after_frames] = ["-f", "ffmetadata", "-i", METADATA]
        self._encoder = Encoder(command, unfinished, self.path, metadata)
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
            VideoError: ffmpeg has failed, no frame was written, or not as many as ``chapters`` has
                titles. There is then no file.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if not self.frames_written:
                raise VideoError(f"no frame was written to {str(self.path)!r}")
            if self._chapters not in (None, self.frames_written):
                raise VideoError(
                    f"chapters has {self._chapters} titles, but {self.frames_written} frames were "
                    f"written to {str(self.path)!r}"
                )
            self._encoder.finish()
            self.bytes_written = self._encoder.bytes_written
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
    output: Path,
    options: dict[str, Any],
) -> list[str]:
    import ffmpeg  # here, since it takes 40 ms

    source = ffmpeg.input(
        "pipe:0",
        format="rawvideo",
        pixel_format="yuv420p" if pixel_format == "i420" else pixel_format,
        video_size=size,
        framerate=fps,
        **({} if pixel_format == "rgb24" else BT709),
    )
    # Without -xerror, ffmpeg 5 reports success when the disk is full at the very end.
    start = [executable, "-nostdin", "-xerror", "-loglevel", "warning", "-nostats"]
    target = source.output(f"file:{output}", **options)
    command: list[str] = target.compile(start, overwrite_output=True)
    return command


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
