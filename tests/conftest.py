"""Shared by all tests: the ``cuda`` marker, ffprobe, ffmpegs, a folder to work in, a small disk."""

import json
import os
import shutil
import subprocess
import sys

import imageio_ffmpeg
import pytest
import torch
from PIL import Image

from camfuse.video import find_ffmpeg
from own_model import OWN


def pytest_runtest_setup(item):
    if item.get_closest_marker("cuda") is None or torch.cuda.is_available():
        return
    reason = "no CUDA device on this machine"
    if os.environ.get("CAMFUSE_REQUIRE_CUDA") == "1":
        pytest.fail(f"{reason}, but CAMFUSE_REQUIRE_CUDA=1")
    pytest.skip(reason)


def pytest_collection_modifyitems(items):
    # Files of minutes first: begun last, one process would work through them alone.
    items.sort(key=lambda item: item.path.parent.name != "emulator")


@pytest.fixture
def ffprobe():
    """A function from a video to its first stream's properties."""
    executable = shutil.which("ffprobe")
    if executable is None:
        if os.environ.get("CAMFUSE_REQUIRE_FFPROBE") == "1":
            pytest.fail("ffprobe is required by CAMFUSE_REQUIRE_FFPROBE=1 and is not on PATH")
        pytest.skip("no ffprobe on PATH")

    def probe(path):
        command = [executable, "-v", "error", "-count_frames", "-show_streams", "-of", "json"]
        output = subprocess.run([*command, f"file:{path}"], capture_output=True, check=True).stdout
        return json.loads(output)["streams"][0]

    return probe


@pytest.fixture(params=["system", "imageio-ffmpeg"])
def ffmpeg(request):
    """Each of the ffmpegs that camfuse would find."""
    if request.param == "imageio-ffmpeg":
        return imageio_ffmpeg.get_ffmpeg_exe()
    if (found := shutil.which("ffmpeg")) is None:
        pytest.skip("no ffmpeg on PATH")
    return found


# What a stand-in is asked before its job begins.
ANSWER = 'case "$*" in *-encoders) exec "$FFMPEG" "$@";; esac'


@pytest.fixture
def script(tmp_path_factory):
    """A function that makes a shell script stand in for ffmpeg; $FFMPEG is the real one."""

    def make(body):
        path = tmp_path_factory.mktemp("bin") / "ffmpeg"
        path.write_text(f"#!/bin/sh\nFFMPEG='{find_ffmpeg()}'\n{ANSWER}\n{body}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a photograph and a model of the user's own: ``own:make``."""
    monkeypatch.chdir(tmp_path)
    Image.linear_gradient("L").resize((60, 40)).convert("RGB").save("photo.png")
    (tmp_path / "own.py").write_text(OWN)
    yield tmp_path
    sys.modules.pop("own", None)


@pytest.fixture
def disk(tmp_path):
    """A function that makes a file system of so many bytes."""
    mounted = []

    def make(size):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = f"cannot mount a tmpfs: {getattr(error, 'stderr', error)}".strip()
            if os.environ.get("CAMFUSE_REQUIRE_TMPFS") == "1":
                pytest.fail(f"{reason}, but CAMFUSE_REQUIRE_TMPFS=1")
            pytest.skip(reason)
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)
