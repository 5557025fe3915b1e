"""Shared by all tests: what the ``cuda`` marker means, and ffprobe as a judge of videos."""

import json
import os
import shutil
import subprocess

import pytest
import torch


def pytest_runtest_setup(item):
    if item.get_closest_marker("cuda") is None or torch.cuda.is_available():
        return
    reason = "no CUDA device on this machine"
    if os.environ.get("CAMFUSE_REQUIRE_CUDA") == "1":
        pytest.fail(f"{reason}, but CAMFUSE_REQUIRE_CUDA=1")
    pytest.skip(reason)


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
