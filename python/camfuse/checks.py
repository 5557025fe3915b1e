"""Checks of arguments that several modules make."""

from __future__ import annotations

import contextlib
import operator
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


def expect_whole(name: str, value: object, *, of: str = "", at_least: int | None = None) -> None:
    """Checks that an argument is a whole number, perhaps ``of`` pixels, and no less than some.

    Raises:
        TypeError: If it is no whole number.
        ValueError: If it is less than ``at_least``.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        what = f"a whole number of {of}" if of else "a whole number"
        raise TypeError(f"{name}: expected {what}, got {value!r}") from None
    if at_least is not None and number < at_least:
        raise ValueError(f"{name}: expected at least {at_least}, got {number}")


def check_not_input(out: Path, inputs: Iterable[Path], name: str = "out") -> None:
    """Checks that a file to be written is none of those that are read.

    Raises:
        ValueError: If it is; the message names the argument.
    """
    if (written := _identity(out)) and written in map(_identity, inputs):
        raise ValueError(f"{name}: expected another file than the photograph, got {str(out)!r}")


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file that exists from all others, whatever it is called."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None
