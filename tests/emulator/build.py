"""Compiles an op's CUDA sources, and the emulator, into a shared library for the worker.

The library NAME is made of ``csrc/cuda/NAME.cu`` (or what SOURCES says) and
``tests/emulator/NAME_interface.cpp``. Objects are kept in ``build/emulator`` under a hash of all
that went into them.

``python tests/emulator/build.py NAME ...`` builds libraries, for their compile errors.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import secrets
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
    "standalone": ("layer_cam", "fused_cam", "render_frames"),
}

OWN = ("fibers", "thread_state", "engine", "device_memory", "emulated_cuda", "interface")
SANITIZE = ("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")
COMPILE = (
    *("-x", "c++", "-std=c++20", "-fPIC", "-fvisibility=hidden"),
    *("-O1", "-g1", "-fno-omit-frame-pointer", "-ffp-contract=off"),
    # No tracking of dead stack frames: it would keep a second stack for each thread.
    *(*SANITIZE, "--param=asan-use-after-return=0"),
    *("-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"),
    "-Wno-unknown-pragmas",  # nvcc's
)
# What switches between threads: millions of times a test.
FAST = {EMULATOR / "fibers.cpp", EMULATOR / "engine.cpp"}
FASTER = ("-O2", "-fno-sanitize=all")
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
def _version(command: tuple[str, ...]) -> bytes:
    return subprocess.run([*command, "--version"], capture_output=True, check=True).stdout


def _included(source: Path, folders: Sequence[Path]) -> dict[Path, str]:
    """A source and all that it includes of `folders`, with the names by which they are included."""
    found: dict[Path, str] = {}
    waiting = [(source, source.name)]
    while waiting:
        path, name = waiting.pop()
        if path in found:
            continue
        found[path] = name
        for included in map(bytes.decode, INCLUDE.findall(path.read_bytes())):
            places = [folder / included for folder in (path.parent, *folders)]
            waiting += [(place, included) for place in places if place.is_file()][:1]
    return found


def _make(command: Sequence[object], target: Path) -> None:
    """Makes `target`, whole or not at all."""
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
    words = [*map(str, command), "-o", str(part)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        part.unlink(missing_ok=True)
        raise BuildError(f"{shlex.join(words)}\n{done.stdout}{done.stderr}")
    part.replace(target)


def _object(source: Path, csrc: Path) -> Path:
    folders = (csrc, EMULATOR)
    flags = [*compiler(), *COMPILE, *(FASTER if source in FAST else ())]
    content = hashlib.sha256(_version(tuple(compiler())) + repr(flags).encode())
    for path, name in sorted(_included(source, folders).items(), key=lambda item: item[1]):
        text = path.read_bytes()
        content.update(f" {name} {len(text)} ".encode() + text)
    target = CACHE / f"{source.stem}-{content.hexdigest()[:20]}.o"
    if not target.exists():
        # Reports name a copy's files as they name the original's.
        names = [f"-ffile-prefix-map={top}/=" for top in (csrc.parent, ROOT)]
        _make([*flags, *names, *(f"-I{folder}" for folder in folders), "-c", source], target)
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
        _make([*compiler(), "-shared", *SANITIZE, "-Wl,-z,defs", *objects], target)
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
