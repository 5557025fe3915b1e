"""Small videos for tests: making and decoding them, and what may be left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np

from camfuse.video import VideoWriter, find_ffmpeg

WIDTH, HEIGHT = 64, 48
RGB_BYTES, I420_BYTES = WIDTH * HEIGHT * 3, WIDTH * HEIGHT * 3 // 2


def noise(count, frame_bytes):
    return np.random.default_rng(0).integers(0, 256, (count, frame_bytes), dtype=np.uint8)


def writer(path, **options):
    arguments = {"width": WIDTH, "height": HEIGHT, "fps": 5, "pixel_format": "i420"} | options
    return VideoWriter(path, **arguments)


def decode(path, pixel_format):
    command = [find_ffmpeg(), "-v", "error", "-i", f"file:{path}", "-f", "rawvideo"]
    command += ["-pix_fmt", pixel_format, "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8)


def processes(folder):
    """The commands running now that name a file in ``folder``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:  # ended meanwhile
            continue
        if os.fsencode(folder) + b"/.camfuse-" in command:
            found.append((int(entry.parent.name), command))
    return found


def open_files(folder):
    """The unfinished videos in ``folder`` that a process has open."""
    found = []
    for process, _ in processes(folder):
        for link in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(link.readlink())
    return [path for path in found if path.parent == folder]


def assert_nothing_left(folder):
    assert list(folder.iterdir()) == []
    assert processes(folder) == []


class interrupted_after:  # noqa: N801  (reads as a phrase in `with`)
    """Raise KeyboardInterrupt in the block once ``seconds`` have passed, wherever it is then."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __enter__(self):
        def interrupt(*_):
            raise KeyboardInterrupt

        self.previous = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.previous)


def wait_for(condition, seconds=30):
    """The first true value of ``condition``."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.002)
    return value
