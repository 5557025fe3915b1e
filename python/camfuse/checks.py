"""Checks of arguments that several modules make."""

from __future__ import annotations


def expect(name: str, value: object, *types: type) -> None:
    """Checks that an argument is of one of ``types``.

    Raises:
        TypeError: If it is not; the message names the argument.
    """
    if not isinstance(value, types):
        expected = " or ".join("None" if one is type(None) else one.__name__ for one in types)
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")
