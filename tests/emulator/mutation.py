"""Faults put into copies of the CUDA sources, to prove that the emulator's checks can fail."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from build import CSRC, library
from emulation import Emulator

Check = Callable[[Emulator], None]


@dataclass(frozen=True)
class Mutation:
    """One fault.

    Attributes:
        why: What is wrong, in words.
        file: In csrc/cuda.
        old: A text that occurs in the file exactly once.
        new: What takes its place.
        check: Must fail.
    """

    why: str
    file: str
    old: str
    new: str
    check: Check


def replaced(text: str, old: str, new: str, where: str) -> str:
    """`text` with its one occurrence of `old` replaced."""
    if (found := text.count(old)) != 1:
        raise ValueError(f"{where} holds {found} of {old!r}, expected 1")
    return text.replace(old, new)


def mutated_library(name: str, edits: Sequence[tuple[str, str, str]], folder: Path) -> Path:
    """The library of op `name` after (file, old, new) edits, made in `folder`."""
    csrc = folder / "csrc"
    shutil.copytree(CSRC, csrc, ignore=shutil.ignore_patterns("cpu", "args"))
    for file, old, new in edits:
        path = csrc / "cuda" / file
        path.write_text(replaced(path.read_text(), old, new, file))
    return library(name, csrc)
