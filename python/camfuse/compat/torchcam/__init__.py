"""The face of torchcam 0.5: extractors that hook the model, on camfuse's kernels."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["__version__", "explain", "methods", "metrics", "utils"]

__version__ = "0.5.0"
"""The version of torchcam whose interface this is."""


def __getattr__(name: str) -> ModuleType:
    if name in ("explain", "methods", "metrics", "utils"):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
