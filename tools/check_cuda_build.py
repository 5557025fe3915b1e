"""Checks that a CUDA build holds code for every architecture it was asked for.

Usage: python tools/check_cuda_build.py BUILD_FOLDER
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from cuda_binary import find_tool


def main(folder: Path) -> None:
    """Compares the architectures in CMake's cache with those in the module."""
    cache = (folder / "CMakeCache.txt").read_text()
    wanted = _match(r"^CAMFUSE_CUDA_ARCHITECTURES:STRING=(.*)$", cache).split(";")
    cuobjdump = find_tool("cuobjdump")
    (module,) = folder.glob("_C.*.so")
    listing = "".join(
        subprocess.run(
            [cuobjdump, option, module], check=True, capture_output=True, text=True
        ).stdout
        for option in ("--list-elf", "--list-ptx")
    )
    # "90-real" is machine code (sm_90.cubin), "90-virtual" is PTX (sm_90.ptx).
    kinds = {"real": "cubin", "virtual": "ptx"}
    missing = [
        name
        for name in wanted
        if "sm_{}.{}".format(name.split("-")[0], kinds[name.split("-")[1]]) not in listing
    ]
    if missing:
        sys.exit(f"{module} lacks code for {', '.join(missing)}; it holds\n{listing}")
    # It must load without a GPU, and say what is missing when a kernel is asked for.
    code = "import torch, _C; assert _C.build_info()['cuda']\ntry: print(_C.cuda_probe(10))\n"
    code += "except RuntimeError as error: print(error)"
    answer = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=folder
    )
    print(f"{module.name} holds {', '.join(wanted)}; a kernel run here: {answer.stdout.strip()}")


def _match(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        sys.exit(f"CMakeCache.txt has no line like {pattern}")
    return found.group(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
