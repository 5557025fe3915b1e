"""Whatever goes wrong, the error says so, and neither a file nor a process is left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from camfuse import encoder
from camfuse.video import VideoError
from videos import (
    I420_BYTES,
    assert_nothing_left,
    decode,
    interrupted_after,
    noise,
    processes,
    wait_for,
    writer,
)


def test_ffmpeg_killed_midway(tmp_path, ffmpeg):
    def fill():
        with writer(tmp_path / "out.mp4", ffmpeg=ffmpeg) as out:
            while out.frames_written < 100_000:
                if out.frames_written == 20:
                    [(pid, _)] = wait_for(lambda: processes(tmp_path))
                    os.kill(pid, signal.SIGKILL)
                out.write(noise(1, I420_BYTES))

    with pytest.raises(VideoError, match=r"killed by signal 9 .* while writing '.*out.mp4'"):
        fill()
    assert_nothing_left(tmp_path)


def test_rejected_options_are_reported_in_ffmpegs_words(tmp_path, ffmpeg):
    def fill():
        with writer(tmp_path / "out.mp4", ffmpeg=ffmpeg, preset="sluggish") as out:
            out.write(noise(1, I420_BYTES))

    with pytest.raises(VideoError, match=r"preset.*sluggish") as error:
        fill()
    assert "failed with exit status" in str(error.value)
    assert "\n" not in str(error.value)
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('"$FFMPEG" "$@"; echo "late woe" >&2; exit 3', "failed with exit status 3.*: late woe$"),
        ("exit 0", "stopped reading too early"),
        ("exec head -c 5000 >/dev/null", "stopped reading too early"),
        ("kill -TERM $$", "killed by signal 15"),
        ('trap \'\' XFSZ; ulimit -f 1; exec "$FFMPEG" "$@"', "File too large"),  # as a full disk
        (
            'for a; do case "$a" in file:*) rm "${a#file:}";; esac; done; cat >/dev/null',
            "No such file",
        ),
    ],
)
def test_a_failing_ffmpeg(tmp_path, script, body, message):
    def fill():
        with writer(tmp_path / "out.mp4", ffmpeg=script(body)) as out:
            for _ in range(100):
                out.write(noise(1, I420_BYTES))

    with pytest.raises(VideoError, match=message):
        fill()
    assert_nothing_left(tmp_path)


def test_an_ffmpeg_that_cannot_start(tmp_path):
    broken = tmp_path / "ffmpeg"
    broken.write_bytes(b"\x7fELF not really")
    broken.chmod(0o755)
    with (
        pytest.raises(VideoError, match="Exec format error"),
        writer(tmp_path / "out.mp4", ffmpeg=broken) as out,
    ):
        out.write(noise(1, I420_BYTES))
    assert list(tmp_path.iterdir()) == [broken]


def test_a_talkative_ffmpeg_neither_stalls_nor_fills_the_memory(tmp_path, script):
    talk = script("yes talk | head -c 3000000 >&2; cat >/dev/null; exit 1")
    out = writer(tmp_path / "out.mp4", ffmpeg=talk)
    out.write(noise(50, I420_BYTES))
    with pytest.raises(VideoError, match=r"out.mp4': .*talk$") as error:
        out.close()
    assert len(error.value.log) <= 4096
    assert_nothing_left(tmp_path)


def test_a_slow_ffmpeg_gets_every_frame(tmp_path, script):
    frames = noise(40, I420_BYTES)
    path = tmp_path / "out.mkv"
    with writer(path, ffmpeg=script('sleep 0.3; exec "$FFMPEG" "$@"')) as out:
        for frame in frames:
            out.write(frame)
    np.testing.assert_array_equal(decode(path, "yuv420p"), frames.ravel())


def test_no_frame_is_an_error(tmp_path):
    with pytest.raises(VideoError, match=r"no frame was written to '.*out.mp4'"):
        writer(tmp_path / "out.mp4").close()
    assert_nothing_left(tmp_path)


def test_an_exception_of_the_caller_passes_and_leaves_nothing(tmp_path, script):
    """Even if ffmpeg is a wrapper script, whose own child must die too."""

    def fill():
        with writer(tmp_path / "out.mp4", ffmpeg=script('"$FFMPEG" "$@"; true')) as out:
            out.write(noise(3, I420_BYTES))
            wait_for(lambda: len(processes(tmp_path)) == 2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fill()
    wait_for(lambda: not processes(tmp_path))  # a grandchild is reaped by init, not by us
    assert_nothing_left(tmp_path)


def test_a_forgotten_writer_leaves_nothing(tmp_path):
    out = writer(tmp_path / "out.mp4")
    out.write(noise(3, I420_BYTES))
    del out
    gc.collect()
    assert_nothing_left(tmp_path)


def test_a_closed_writer_stays_closed(tmp_path):
    out = writer(tmp_path / "out.mp4")
    out.write(noise(3, I420_BYTES))
    out.close()
    out.close()
    with pytest.raises(ValueError, match=r"write to a closed VideoWriter of '.*out.mp4'"):
        out.write(noise(1, I420_BYTES))
    assert int(out.frames_written) == 3


def test_writing_waits_for_an_ffmpeg_that_does_not_read(tmp_path, script):
    """The queue is bounded: at most its chunks, the one in hand and a pipe's content are taken."""
    out = writer(tmp_path / "out.mp4", ffmpeg=script("exec sleep 60"))

    def fill():
        with interrupted_after(0.5), out:
            while True:
                out.write(noise(1, I420_BYTES))

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert out.frames_written <= 3 + 1 + 65536 // I420_BYTES + 1
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("delay", [0.5 * 0.75**i for i in range(24)])
def test_an_interrupt_at_any_moment_leaves_nothing_or_a_whole_video(tmp_path, delay):
    frames = noise(30, I420_BYTES)
    path = tmp_path / "out.mkv"
    try:
        with interrupted_after(delay), writer(path) as out:
            for frame in frames:
                out.write(frame)
                time.sleep(0.001)
    except KeyboardInterrupt:
        pass
    gc.collect()  # an interrupt within the constructor leaves the writer to the collector
    if path.exists():
        np.testing.assert_array_equal(decode(path, "yuv420p"), frames.ravel())
        path.unlink()
    assert_nothing_left(tmp_path)


def test_an_interrupt_before_the_thread_runs_keeps_it_from_starting_ffmpeg(tmp_path, monkeypatch):
    """`Thread.start` waits for the new thread, so it can be interrupted when that is on its way."""
    on_its_way = []

    class Interrupted(threading.Thread):
        def start(self):
            on_its_way.append(super().start)
            raise KeyboardInterrupt

    monkeypatch.setattr(encoder.threading, "Thread", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer(tmp_path / "out.mkv")
    gc.collect()
    assert_nothing_left(tmp_path)

    def popen(*_, **__):
        pytest.fail("ffmpeg was started")

    monkeypatch.setattr(encoder.subprocess, "Popen", popen)
    (start,) = on_its_way
    start()
    start.__self__.join()
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("presses", [1, 3])
@pytest.mark.parametrize(
    "body", ["exec sleep 60", "cat >/dev/null; exec sleep 60"], ids=["write", "close"]
)
def test_ctrl_c_in_a_terminal(tmp_path, script, body, presses):
    """SIGINT reaches the whole foreground group, as a terminal sends it, perhaps repeatedly."""
    program = f"""
import numpy as np
from camfuse.video import VideoWriter
with VideoWriter({str(tmp_path / "out.mp4")!r}, width=64, height=48, fps=5,
                 pixel_format="i420", ffmpeg={str(script(body))!r}) as out:
    print("ready", flush=True)
    for _ in range(60):
        out.write(np.zeros({I420_BYTES}, np.uint8))
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    for _ in range(presses):
        os.killpg(child.pid, signal.SIGINT)
        time.sleep(0.002)
    _, log = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGINT
    assert b"KeyboardInterrupt" in log
    assert_nothing_left(tmp_path)
