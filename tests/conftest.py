"""Shared by all tests: what the ``cuda`` marker means."""

import os

import pytest
import torch


def pytest_runtest_setup(item):
    if item.get_closest_marker("cuda") is None or torch.cuda.is_available():
        return
    reason = "no CUDA device on this machine"
    if os.environ.get("CAMFUSE_REQUIRE_CUDA") == "1":
        pytest.fail(f"{reason}, but CAMFUSE_REQUIRE_CUDA=1")
    pytest.skip(reason)
