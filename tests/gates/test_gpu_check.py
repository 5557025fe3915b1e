"""The program for owners of a GPU compiles, and says when there is none."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_it_compiles_and_says_that_there_is_no_gpu(tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc on PATH")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: make gpu-check runs it")
    command = ["make", "--no-print-directory", "gpu-check", f"GPU_CHECK={tmp_path / 'gpu_check'}"]
    command += ["NVCC_ARCH=-arch=sm_75"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "no CUDA device, nothing was checked" in done.stderr
    assert subprocess.run([tmp_path / "gpu_check"], capture_output=True).returncode == 77
