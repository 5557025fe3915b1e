"""Progress is drawn on a terminal, and nowhere else."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys

COMMAND = [sys.executable, "-m", "camfuse.cli", "animate", "photo.png", "--model", "own:make"]


def shown_by(command) -> tuple[str, bytes]:
    """What a terminal shows of a command, and what it prints."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment) as done:
        os.close(theirs)
        shown = bytearray()
        try:
            while block := os.read(ours, 4096):
                shown += block
        except OSError:  # the other side is closed
            pass
        output = done.stdout.read()
    os.close(ours)
    assert done.returncode == 0
    return shown.decode(), output


def test_a_terminal_shows_stages_rate_and_time_left(folder):
    text, output = shown_by(COMMAND)
    for word in ("maps", "video", "5/5", "/s", "0:00"):
        assert word in text
    assert "/?" not in text
    assert output.startswith(b"photo.mp4: 5 layers")


def test_several_photographs_are_counted_from_none(folder):
    shutil.copy("photo.png", "other.png")
    text, _ = shown_by([*COMMAND, "other.png"])
    assert "videos" in text
    assert "0/2" in text
    assert "/?" not in text


def test_a_pipe_shows_nothing_of_it(folder):
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["a model that talks"]
