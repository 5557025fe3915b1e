"""A face of which a few names take the place of a library's own, and the library stays."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


@dataclass
class Exchange:
    """Names of one library that are camfuse's wherever the library itself has bound them.

    Attributes:
        name: The library's top-level package.
        by: The module whose ``__all__`` are the names; imported once the library is.
        after: The module of the library that has all these names once it is imported, and everyone
            who needs them imports it first.
    """

    name: str
    by: str
    after: str
    _exchanged: list[tuple[object, object]] = field(default_factory=list)

    def put_in(self) -> bool:
        """Exchanges the names if the library is imported, and says whether it is."""
        imported = self.after in sys.modules
        if imported:
            self._exchange()
        return imported

    def take_out(self) -> None:
        """Puts the library's own objects back."""
        for theirs, ours in self._exchanged:
            self._rebind(ours, theirs)
        self._exchanged.clear()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None,
        asked: MetaPathFinder,
    ) -> ModuleSpec | None:
        """Where the library's module is, if names are to be exchanged once it is imported."""
        if fullname != self.after:
            return None
        for finder in sys.meta_path:
            spec = None if finder is asked else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Before(spec.loader, self)
                return spec
        return None

    def _exchange(self) -> None:
        face, library = import_module(self.by), sys.modules[self.after]
        for name in face.__all__:
            theirs, ours = getattr(library, name), getattr(face, name)
            if theirs is not ours:
                self._exchanged.append((theirs, ours))
                self._rebind(theirs, ours)

    def _rebind(self, old: object, new: object) -> None:
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == self.name and isinstance(module, ModuleType):
                for key in [key for key, value in vars(module).items() if value is old]:
                    setattr(module, key, new)


class _Before(Loader):
    """Loads a module of the library, then has the names exchanged."""

    def __init__(self, loader: Loader, exchange: Exchange) -> None:
        self.loader, self.exchange = loader, exchange

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.exchange._exchange()
