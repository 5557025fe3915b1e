"""The CAM methods: one registry, one file per family."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from camfuse.methods.base import Method
from camfuse.methods.gradient import GRADIENT_METHODS
from camfuse.methods.random import RANDOM_METHODS

__all__ = ["METHODS", "Method", "find_method", "find_methods"]

METHODS: dict[str, Method] = {
    method.name: method for method in (*GRADIENT_METHODS, *RANDOM_METHODS)
}


def find_method(name: str) -> Method:
    """The method of this name.

    Raises:
        ValueError: If there is none; the message lists the names.
    """
    if name in METHODS:
        return METHODS[name]
    close = difflib.get_close_matches(str(name), METHODS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {name!r}{hint}")


def find_methods(method: str | Sequence[str]) -> list[Method]:
    """The methods of one or several names.

    Raises:
        ValueError: If one of them does not exist, or there is none.
    """
    names = [method] if isinstance(method, str) or not isinstance(method, Sequence) else method
    methods = [find_method(name) for name in names]
    if not methods:
        raise ValueError("method: expected at least one method, got none")
    return methods
