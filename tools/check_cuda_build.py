"""Checks that a CUDA build holds code for every architecture it was asked for.

Usage: python tools/check_cuda_build.py BUILD_FOLDER
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cuda_code import missing_architectures, wanted_architectures


def main(folder: Path) -> None:
    """Compares the architectures in CMake's cache with those in the module."""
    wanted = wanted_architectures(folder)
    (module,) = folder.glob("_C.*.so")
    if missing := missing_architectures(module, wanted):
        sys.exit(f"{module} lacks code for {', '.join(missing)}")
    # It must load without a GPU, and say what is missing when a kernel is asked for.
    code = "import torch, _C; assert _C.build_info()['cuda']\ntry: print(_C.cuda_probe(10))\n"
    code += "except RuntimeError as error: print(error)"
    answer = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=folder
    )
    print(f"{module.name} holds {', '.join(wanted)}; a kernel run here: {answer.stdout.strip()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
