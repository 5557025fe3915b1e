"""Builds the native ops with ASan and UBSan, and runs their tests on that build.

Run by ``make sanitize`` with the environment's Python. All is made in ``build/sanitize``; the
environment's own build stays as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pybind11

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "sanitize"
PACKAGES = BUILD / "packages"
BIN = Path(sys.executable).parent
# These tests are about Python and torch, and take long.
LEFT_OUT = "not opcheck and not differentiable and not unknown_instruction_set"
OPS = ("sanitizer", "layer_cam", "fused_cam", "impute", "principal_map", "render_frames", "isa")


def run(*command: object, **environment: str) -> None:
    """Runs a command that must succeed."""
    print("+", *command, flush=True)
    subprocess.run(list(map(str, command)), env=os.environ | environment, check=True)


def build() -> None:
    """Puts a camfuse with a sanitized ``_C`` into PACKAGES."""
    options = {
        "CAMFUSE_SANITIZE": "ON",
        "CAMFUSE_CUDA": "off",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "CMAKE_MAKE_PROGRAM": BIN / "ninja",
    }
    shutil.rmtree(PACKAGES, ignore_errors=True)
    defines = [f"-D{name}={value}" for name, value in options.items()]
    run(BIN / "cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", *defines)
    run(BIN / "cmake", "--build", BUILD)
    run(BIN / "cmake", "--install", BUILD, "--prefix", PACKAGES)
    for source in (ROOT / "python" / "camfuse").iterdir():
        if not source.name.startswith(("_C.", "__pycache__")):
            (PACKAGES / "camfuse" / source.name).symlink_to(source)


def interpreter() -> Path:
    """A Python that finds PACKAGES before the environment's packages.

    An environment of its own, because that of this process finds its editable camfuse before
    anything on PYTHONPATH; folders that a .pth file adds do not have their .pth files read.
    """
    base, site = BUILD / "venv", Path(sysconfig.get_path("purelib"))
    run(sys.executable, "-m", "venv", "--without-pip", base)
    (own,) = base.glob("lib/python*/site-packages")
    (own / "sanitize.pth").write_text(f"{PACKAGES}\n{site}\n")
    return base / "bin" / "python"


def compilers_library(name: str) -> str:
    """The path of a runtime library of the compiler that CMake chose."""
    cache = (BUILD / "CMakeCache.txt").read_text().splitlines()
    (compiler,) = (
        line.split("=", 1)[1] for line in cache if line.startswith("CMAKE_CXX_COMPILER:")
    )
    command = [compiler, f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


def main() -> None:
    """Builds, then tests."""
    build()
    runtime = {
        # The interpreter is not instrumented: the runtime must be there before torch is. It looks
        # for C++ exceptions when it starts, so their library comes with it.
        "LD_PRELOAD": " ".join(map(compilers_library, ("libasan.so", "libstdc++.so.6"))),
        # Python leaks on purpose. Too large allocations are an error that tests expect. Aborting
        # lets pytest say which test it was.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:abort_on_error=1:"
        "detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
        "CAMFUSE_REQUIRE_SANITIZER": "1",
    }
    tests = [ROOT / "tests" / f"test_{op}.py" for op in OPS]
    # Reports must reach the terminal, although the process that writes them dies.
    options = ("-m", "not slow", "-k", LEFT_OUT, "--capture=sys", "--numprocesses=auto")
    run(interpreter(), "-m", "pytest", *options, *tests, **runtime, OMP_NUM_THREADS="1")


if __name__ == "__main__":
    main()
