"""Whatever goes wrong, the error says so, and neither a file nor a process is left behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from camfuse import encoder, ffmpeg_probe
from camfuse.formats import FORMATS
from camfuse.video import VideoError
from videos import (
    I420_BYTES,
    RGB_BYTES,
    assert_nothing_left,
    decode,
    interrupted_after,
    noise,
    open_files,
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


@pytest.mark.parametrize("chapters", [None, ["one"]])
def test_an_option_rejected_when_the_encoder_opens_is_reported_in_ffmpegs_words(
    tmp_path, script, ffmpeg, chapters
):
    late = script(
        'for a; do shift; [ "$a" = ultrafast ] && a=sluggish; set -- "$@" "$a"; done\n'
        f"exec '{ffmpeg}' \"$@\""
    )

    def fill():
        with writer(tmp_path / "out.mp4", ffmpeg=late, chapters=chapters) as out:
            out.write(noise(1, I420_BYTES))

    with pytest.raises(VideoError, match=r"preset.*sluggish") as error:
        fill()
    assert "failed with exit status" in str(error.value)
    assert "out.mp4" in str(error.value)
    assert "\n" not in str(error.value)
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('"$FFMPEG" "$@"; echo "late woe" >&2; exit 3', "failed with exit status 3.*: late woe$"),
        ("exit 0", "stopped reading too early"),
        ("cat >/dev/null", "wrote nothing into '.*out.mp4'"),
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


def test_a_slowly_reading_ffmpeg_gets_every_frame_while_few_are_held(tmp_path, script):
    slow = script(
        f"for i in $(seq 40); do dd bs={I420_BYTES} count=1 iflag=fullblock status=none; "
        'sleep 0.005; done | "$FFMPEG" "$@"'
    )
    frames = noise(40, I420_BYTES)
    held, most = [], 0
    path = tmp_path / "out.mkv"
    with writer(path, ffmpeg=slow) as out:
        for frame in frames:
            given = frame.copy()
            held = [other for other in held if other() is not None] + [weakref.ref(given)]
            most = max(most, len(held))
            out.write(given)
    np.testing.assert_array_equal(decode(path, "yuv420p"), frames.ravel())
    assert most <= 3 + 1 + 2  # queued, being written, about to be queued or just written


# The disk


@pytest.mark.parametrize("ending", FORMATS)
def test_a_full_disk(tmp_path, ffmpeg, disk, ending):
    """Whether it is full at once or only short of the last bytes."""

    def fill(folder):
        with writer(folder / f"out{ending}", pixel_format="rgb24", ffmpeg=ffmpeg) as out:
            out.write(noise(12, RGB_BYTES))
        return out.bytes_written

    needed = fill(tmp_path)
    page = 4096
    assert needed > 2 * page
    for size in (page, (needed - 1) // page * page):
        folder = disk(size)
        with pytest.raises(VideoError, match=rf"out\{ending}': .*No space left"):
            fill(folder)
        assert_nothing_left(folder)
    assert fill(disk((needed + page) // page * page)) == needed


@pytest.fixture
def own_folder():
    """A folder of a user who is not root, as whom the test then runs: root may write anywhere."""
    import ffmpeg  # noqa: F401  # root's own packages may be unreadable then

    folder = Path(tempfile.mkdtemp())
    root = os.geteuid() == 0
    if root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_a_folder_that_becomes_read_only(own_folder, ending):
    path = own_folder / f"out{ending}"
    path.write_text("old")
    out = writer(path)
    out.write(noise(3, I420_BYTES))
    own_folder.chmod(0o555)
    with pytest.raises(VideoError, match=rf"out\{ending}.*Permission denied"):
        out.close()
    assert processes(own_folder) == []
    assert path.read_text() == "old"


def test_an_aborted_video_in_a_folder_that_became_read_only(own_folder):
    def fill():
        with writer(own_folder / "out.mp4") as out:
            out.write(noise(3, I420_BYTES))
            own_folder.chmod(0o555)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fill()
    assert processes(own_folder) == []


@pytest.mark.parametrize("ending", FORMATS)
def test_a_folder_that_is_removed(tmp_path, ending):
    folder = tmp_path / "folder"
    folder.mkdir()
    out = writer(folder / f"out{ending}")
    out.write(noise(3, I420_BYTES))
    wait_for(lambda: open_files(folder))
    shutil.rmtree(folder)
    with pytest.raises(VideoError, match=rf"out\{ending}.*No such file"):
        out.close()
    assert processes(folder) == []
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_file_that_vanishes(tmp_path):
    (tmp_path / "out.mkv").write_text("old")
    out = writer(tmp_path / "out.mkv")
    out.write(noise(3, I420_BYTES))
    wait_for(lambda: open_files(tmp_path))
    [unfinished] = tmp_path.glob(".camfuse-*")
    unfinished.unlink()
    with pytest.raises(VideoError, match=r"cannot write '.*out\.mkv': .*No such file"):
        out.close()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


# Others at the same file


@pytest.mark.parametrize("last", [0, 1])
def test_of_two_writers_of_one_file_the_last_to_finish_wins(tmp_path, last):
    path = tmp_path / "out.mkv"
    outs = [writer(path), writer(path)]
    frames = noise(2 * 3, I420_BYTES).reshape(2, 3, I420_BYTES)
    for out, own in zip(outs, frames, strict=True):
        out.write(own)
    for i in (1 - last, last):
        outs[i].close()
        np.testing.assert_array_equal(decode(path, "yuv420p"), frames[i].ravel())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("worker", [threading.Thread, multiprocessing.get_context("fork").Process])
def test_a_file_that_two_write_again_and_again_is_always_one_whole_video(tmp_path, worker):
    shades = [np.full((3, I420_BYTES), shade, np.uint8) for shade in (60, 180)]

    def write(path, frames, times):
        for _ in range(times):
            with writer(path) as out:
                out.write(frames)

    (tmp_path / "alone").mkdir()
    whole = set()
    for frames in shades:
        write(tmp_path / "alone" / "out.mp4", frames, 1)
        whole.add((tmp_path / "alone" / "out.mp4").read_bytes())
    assert len(whole) == 2

    folder = tmp_path / "shared"
    folder.mkdir()
    path = folder / "out.mp4"
    workers = [worker(target=write, args=(path, frames, 4)) for frames in shades]
    for one in workers:
        one.start()
    seen = set()
    while any(one.is_alive() for one in workers):
        if path.exists():
            seen.add(path.read_bytes())
        time.sleep(0.002)
    for one in workers:
        one.join()
    assert seen <= whole
    assert path.read_bytes() in whole
    assert list(folder.iterdir()) == [path]


# What an ffmpeg is asked before it is used


def test_an_ffmpeg_that_cannot_answer_is_reported_in_its_words(tmp_path):
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho libfoo.so is missing >&2\nexit 127\n")
    broken.chmod(0o755)
    with pytest.raises(VideoError, match=r"ffmpeg' cannot list .*status 127\): libfoo.so is miss"):
        writer(tmp_path / "out.mp4", ffmpeg=broken)
    assert list(tmp_path.iterdir()) == [broken]


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_ffmpeg_that_never_answers_is_ended_with_its_children(
    tmp_path, monkeypatch, interrupted
):
    stuck = tmp_path / "ffmpeg"
    stuck.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/started\nsleep 61\n")
    stuck.chmod(0o755)
    monkeypatch.setattr(ffmpeg_probe, "_SECONDS", 60 if interrupted else 0.5)
    expected = KeyboardInterrupt if interrupted else VideoError
    with pytest.raises(expected) as error, interrupted_after(0.5 if interrupted else 60):
        writer(tmp_path / "out.mp4", ffmpeg=stuck)
    if not interrupted:
        assert f"'{stuck}' did not answer within 0.5 s" in str(error.value)
    group = int((tmp_path / "started").read_text())
    wait_for(lambda: not group_is_alive(group))
    assert {path.name for path in tmp_path.iterdir()} == {"ffmpeg", "started"}


# The caller


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
    assert out.frames_written <= 3 + 1 + (1 << 20) // I420_BYTES + 1
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


def group_is_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
