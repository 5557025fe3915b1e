"""Packages that faces need for some calls alone, imported when such a call is made."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def optional(name: str, purpose: str) -> Any:
    """A module of the extra ``camfuse[compat]``.

    Args:
        name: Of the module.
        purpose: What it is needed for, as the subject of a sentence.

    Raises:
        ImportError: If it cannot be imported; the message says how to install it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{purpose}: needs {name}, which cannot be imported ({error}); "
            "pip install camfuse[compat]"
        ) from error
