"""Compiles an op's CUDA sources, and the emulator, into a shared library for the worker.

The library NAME is made of ``csrc/cuda/NAME.cu`` (or what SOURCES says) and ``tests/emulator/NAME_interface.cpp``. Objects
are kept in ``build/emulator`` under a hash of all that went into them.

``python tests/emulator/build.py NAME ...`` builds libraries, for their compile errors.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

EMULATOR = Path(__file__).resolve().parent
ROOT = EMULATOR.parent.parent
CSRC = ROOT / "csrc"
CACHE = ROOT / "build" / "emulator"

# Libraries that are made of more than one launcher.
SOURCES = {
    "layer_cam": ("layer_cam", "fused_cam"),
    "layer_cam_plan": ("layer_cam", "fused_cam"),
}

OWN = ("fibers", "device_memory", "engine", "emulated_cuda", "interface")
SANITIZE = ("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")
COMPILE = (
    *("-x", "c++", "-std=c++20", "-fPIC", "-fvisibility=hidden"),
    *("-O1", "-g1", "-fno-omit-frame-pointer", "-ffp-contract=off"),
    # No tracking of dead stack frames: it would keep a second stack for each thread.
    *(*SANITIZE, "--param=asan-use-after-return=0"),
    *("-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"),
    "-Wno-unknown-pragmas",  # nvcc's
)
INCLUDE = re.compile(rb'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


class BuildError(Exception):
    """The compiler's own words."""


def compiler() -> list[str]:
    """``$CXX``, or c++."""
    return shlex.split(os.environ.get("CXX", "c++"))


def compilers_library(name: str) -> str:
    """The path of a runtime library of the compiler."""
    command = [*compiler(), f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


def missing() -> str | None:
    """Why nothing can be built here, if so."""
    if shutil.which(compiler()[0]) is None:
        return f"no compiler {compiler()[0]}"
    if not Path(compilers_library("libasan.so")).is_absolute():
        return f"{compiler()[0]} has no libasan.so"
    return None


@functools.cache
def _identity() -> bytes:
    command = [*compiler(), "--version"]
    version = subprocess.run(command, capture_output=True, check=True).stdout
    return repr((compiler(), COMPILE)).encode() + version


def _files(source: Path, folders: Sequence[Path]) -> dict[str, bytes]:
    """A source and all that it includes of `folders`, by name."""
    found: dict[str, bytes] = {}
    waiting = [(source.name, source)]
    while waiting:
        name, path = waiting.pop()
        if name in found:
            continue
        found[name] = path.read_bytes()
        for included in INCLUDE.findall(found[name]):
            for folder in (path.parent, *folders):
                if (folder / included.decode()).is_file():
                    waiting.append((included.decode(), folder / included.decode()))
                    break
    return found


def _run(command: Sequence[object], target: Path) -> None:
    """Makes `target`, whole or not at all."""
    part = target.with_name(f"{target.name}.{os.getpid()}")
    done = subprocess.run(
        [*map(str, command), "-o", str(part)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        part.unlink(missing_ok=True)
        raise BuildError(f"{shlex.join(map(str, command))}\n{done.stdout}{done.stderr}")
    part.replace(target)


def _object(source: Path, csrc: Path) -> Path:
    folders = (csrc, EMULATOR)
    content = hashlib.sha256(_identity())
    for name, text in sorted(_files(source, folders).items()):
        content.update(f"{name} {len(text)} ".encode() + text)
    target = CACHE / f"{source.stem}-{content.hexdigest()[:20]}.o"
    if not target.exists():
        includes = [f"-I{folder}" for folder in folders]
        # A copy's files are named as the original's are.
        names = [f"-ffile-prefix-map={csrc.parent}/=", f"-ffile-prefix-map={ROOT}/="]
        _run([*compiler(), *COMPILE, *names, *includes, "-c", source], target)
    return target


def build(name: str, sources: Iterable[Path], csrc: Path = CSRC) -> Path:
    """Compiles `sources` with the emulator into a library; headers come from `csrc`."""
    CACHE.mkdir(parents=True, exist_ok=True)
    own = [EMULATOR / f"{stem}.cpp" for stem in OWN]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda source: _object(source, csrc), [*sources, *own]))
    content = hashlib.sha256("".join(path.name for path in objects).encode())
    target = CACHE / f"{name}-{content.hexdigest()[:20]}.so"
    if not target.exists():
        _run([*compiler(), "-shared", *SANITIZE, "-Wl,-z,defs", *objects], target)
    return target


def library(name: str, csrc: Path = CSRC) -> Path:
    """The library of an op, from `csrc` or a changed copy of it."""
    sources = [csrc / "cuda" / f"{source}.cu" for source in SOURCES.get(name, (name,))]
    return build(name, [*sources, EMULATOR / f"{name}_interface.cpp"], csrc)


if __name__ == "__main__":
    try:
        for name in sys.argv[1:]:
            print(library(name))
    except BuildError as error:
        sys.exit(str(error))
