"""Which ffmpeg there is, and what it can do: found out once for each executable."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from camfuse.encoder import VideoError

NVENC = "h264_nvenc"

_SECONDS = 20  # an answer takes 0.1, the first start of NVENC perhaps 2
_NVIDIA_DEVICE = Path("/dev/nvidiactl")
_NVENC_SIDE, _NVENC_FRAMES = 256, 3  # NVENC opens for no less than about 145 x 49


def find_ffmpeg(path: str | Path | None = None) -> str:
    """The ffmpeg to run: ``path`` if given, else the system's, else imageio-ffmpeg's own binary.

    Args:
        path: an executable, or the name of one on ``PATH``.

    Raises:
        ValueError: ``path`` is given and is not an executable file.
        VideoError: no ``path`` is given and there is no ffmpeg.
    """
    if path is not None:
        if found := shutil.which(path):
            return str(found)
        problem = "is not executable" if Path(path).exists() else "does not exist"
        raise ValueError(f"ffmpeg must be an executable file: {str(path)!r} {problem}")
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise VideoError(
            "no ffmpeg found: install it, put it on PATH, or pass its path as ffmpeg"
        ) from error


def encoders_of(executable: str) -> frozenset[str]:
    """The names of the encoders that ``executable`` says it has, such as ``"libx264"``.

    Raises:
        VideoError: it cannot be run, fails, or does not answer.
    """
    return _encoders_of(executable, _modified(executable))


def nvenc_opens(executable: str) -> bool:
    """Whether ``executable`` really encodes H.264 by NVENC here: that it has the encoder is not it.

    A few frames are encoded to nowhere, unless there is no NVIDIA driver or no such encoder.
    """
    if not _NVIDIA_DEVICE.exists() or NVENC not in encoders_of(executable):
        return False
    return _nvenc_opens(executable, _modified(executable))


def _modified(executable: str) -> int:
    """What a cached answer depends on besides the path; 0 for a file that has just gone."""
    with contextlib.suppress(OSError):
        return Path(executable).stat().st_mtime_ns
    return 0


@functools.cache
def _encoders_of(executable: str, modified: int) -> frozenset[str]:
    status, answer, log = _run([executable, "-hide_banner", "-encoders"])
    if status:
        raise VideoError(f"{executable!r} cannot list its encoders (exit status {status})", log)
    lines = answer.rpartition(" ------")[2].splitlines()
    return frozenset(words[1] for line in lines if len(words := line.split()) > 1)


@functools.cache
def _nvenc_opens(executable: str, modified: int) -> bool:
    command = [executable, "-hide_banner", "-loglevel", "error", "-xerror"]
    command += ["-f", "rawvideo", "-pixel_format", "nv12", "-framerate", "25"]
    command += ["-video_size", f"{_NVENC_SIDE}x{_NVENC_SIDE}", "-i", "pipe:0"]
    command += ["-vcodec", NVENC, "-f", "null", "-"]
    frames = bytes(_NVENC_FRAMES * _NVENC_SIDE**2 * 3 // 2)
    try:
        return _run(command, frames)[0] == 0
    except VideoError:  # it hangs
        return False


def _run(command: Sequence[str], data: bytes = b"") -> tuple[int, str, str]:
    """Exit status, output and log; whatever happens, no process is left, nor a child of one."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise VideoError(f"cannot run {command[0]!r}: {error}") from error
    with process:
        try:
            answer, log = process.communicate(data, timeout=_SECONDS)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()  # after an interrupt, `with` would not
            if isinstance(error, subprocess.TimeoutExpired):
                message = f"{command[0]!r} did not answer within {_SECONDS} s"
                raise VideoError(message) from error
            raise
    return process.returncode, answer.decode(errors="replace"), log.decode(errors="replace")
