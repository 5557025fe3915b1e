"""Which CUDA code a module holds, and which its build was asked for."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cuda_binary import find_tool


def wanted_architectures(build: Path) -> list[str]:
    """What CMake was asked for in this build folder, like ``90-real`` or ``120-virtual``."""
    cache = (build / "CMakeCache.txt").read_text()
    (value,) = re.findall(r"^CAMFUSE_CUDA_ARCHITECTURES:STRING=(.+)$", cache, re.MULTILINE)
    return list(value.split(";"))


def missing_architectures(module: Path, wanted: Sequence[str]) -> list[str]:
    """Those of ``wanted`` that a module holds no code for."""
    if not wanted:
        return []
    listing = _listed("--list-elf", module) + _listed("--list-ptx", module)
    return [name for name in wanted if _file_name(name) not in listing]


def _listed(what: str, module: Path) -> str:
    """What cuobjdump lists; nothing where it would fail because there is no code at all."""
    command = [find_tool("cuobjdump"), what, module]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "does not contain device code" not in done.stderr:
        raise RuntimeError(f"{what} {module}: {done.stderr.strip()}")
    return done.stdout


def _file_name(architecture: str) -> str:
    """``90-real`` is machine code (``sm_90.cubin``), ``90-virtual`` is PTX (``sm_90.ptx``)."""
    number, kind = architecture.split("-")
    return f"sm_{number}.{ {'real': 'cubin', 'virtual': 'ptx'}[kind] }"
