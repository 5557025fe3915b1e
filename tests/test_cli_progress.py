"""Progress is drawn on a terminal, and nowhere else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

COMMAND = [sys.executable, "-m", "camfuse.cli", "animate", "photo.png", "--model", "own:make"]


def test_a_terminal_shows_stages_rate_and_time_left(folder):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=theirs, env=environment) as done:
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
    text = shown.decode()
    for word in ("maps", "video", "5/5", "/s", "0:00"):
        assert word in text
    assert output.startswith(b"photo.mp4: 5 layers")


def test_a_pipe_shows_nothing_of_it(folder):
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["a model that talks"]
