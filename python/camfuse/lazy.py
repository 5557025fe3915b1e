"""Packages whose public names are imported when they are first used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType


class LazyPackage(ModuleType):
    """What a package is whose ``__init__`` gives itself this class.

    ``_HOME`` there says which module of the package defines each of its public names. Where a
    function and its module share a name, the function takes it.
    """

    _HOME: Mapping[str, str]
    __all__: Sequence[str]

    def __getattr__(self, name: str) -> object:
        home = vars(self)["_HOME"]
        if name not in home:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"{self.__name__}.{home[name]}"), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        # The import system binds each submodule that it has imported here.
        if isinstance(value, ModuleType) and name in vars(self)["_HOME"]:
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__all__})
