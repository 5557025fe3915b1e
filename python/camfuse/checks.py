"""Checks of arguments that several modules make."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def expect(name: str, value: object, *types: type) -> None:
    """Checks that an argument is of one of ``types``.

    Raises:
        TypeError: If it is not; the message names the argument.
    """
    if not isinstance(value, types):
        expected = " or ".join("None" if one is type(None) else one.__name__ for one in types)
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")


def check_not_input(out: Path, inputs: Iterable[Path], name: str = "out") -> None:
    """Checks that a file to be written is none of those to be read.

    Raises:
        ValueError: If it is, under the same name or another.
    """
    for one in inputs:
        both = out.exists() and one.exists()
        if out.samefile(one) if both else out.resolve() == one.resolve():
            raise ValueError(f"{name}: expected another file than the photograph, got {str(out)!r}")
