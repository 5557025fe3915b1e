"""What was built, and how the build refuses what cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pybind11
import pytest

import camfuse
from camfuse import _C

ROOT = Path(__file__).parent.parent
CMAKE = Path(sys.executable).with_name("cmake")


def configure(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [CMAKE, "-S", ROOT, "-B", folder, f"-DPython_EXECUTABLE={sys.executable}"]
    command += [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_build_info_says_what_was_compiled() -> None:
    info = camfuse.build_info()
    assert info["version"] == camfuse.__version__
    assert info["isa"] in str(info["isa_supported"]).split(",")
    assert info["torch_at_least"] == "2.13"
    assert bool(info["cuda_architectures"]) == info["cuda"] == hasattr(_C, "cuda_probe")


def test_cuda_on_without_a_toolkit_says_so(tmp_path: Path) -> None:
    done = configure(tmp_path, "-DCAMFUSE_CUDA=on", f"-DCUDAToolkit_ROOT={tmp_path}")
    assert done.returncode != 0
    message = one_line(done.stderr)
    assert "CAMFUSE_CUDA=on, but no CUDA toolkit >= 12.8 was found. Put nvcc on PATH" in message


def test_an_unknown_cuda_choice_says_what_is_known(tmp_path: Path) -> None:
    done = configure(tmp_path, "-DCAMFUSE_CUDA=maybe")
    assert done.returncode != 0
    assert "CAMFUSE_CUDA must be auto, on or off, got 'maybe'" in one_line(done.stderr)


def test_a_missing_torch_says_how_to_build(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    done = configure(tmp_path / "build", f"-DPython_EXECUTABLE={tmp_path}/venv/bin/python")
    assert done.returncode != 0
    assert "Install torch >= 2.13 first, then build with `pip install" in one_line(done.stderr)


@pytest.mark.cuda
def test_a_kernel_runs_on_the_device() -> None:
    assert _C.cuda_probe(100_000) == 4_999_950_000
    assert _C.cuda_probe(0) == 0
