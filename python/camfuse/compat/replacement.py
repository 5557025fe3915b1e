"""A face that stands in the place of a whole library, module by module."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_HOME = "camfuse.compat"


class Replacement:
    """The face of one library: ``name.part`` is ``camfuse.compat.name.part``, the same object.

    Args:
        name: The library's top-level package.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._aside: dict[str, ModuleType] = {}

    def put_in(self) -> bool:
        """Sets aside what is imported of the library, and says whether that is anything."""
        self._aside = self._imported()
        for name in self._aside:
            del sys.modules[name]
        return any(self._aside.values())

    def take_out(self) -> None:
        """Puts back what was set aside."""
        for name in self._imported():
            del sys.modules[name]
        sys.modules.update(self._aside)
        self._aside = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None,
        asked: MetaPathFinder,
    ) -> ModuleSpec:
        """Where the face's module is.

        Raises:
            ModuleNotFoundError: If the face has none of this name. No other finder may be asked:
                it would look into the face's folder, and import its modules a second time.
        """
        ours = find_spec(f"{_HOME}.{fullname}")
        if ours is None:
            message = f"camfuse's face of {self.name} has no {fullname!r}"
            raise ModuleNotFoundError(message, name=fullname)
        spec = ModuleSpec(fullname, _Alias(ours.name), origin=ours.origin)
        spec.submodule_search_locations = ours.submodule_search_locations
        return spec

    def _imported(self) -> dict[str, ModuleType]:
        return {k: v for k, v in sys.modules.items() if k.partition(".")[0] == self.name}


class _Alias(Loader):
    """Makes a second name for a module."""

    def __init__(self, name: str) -> None:
        self.name = name

    def exec_module(self, module: ModuleType) -> None:
        # The import system has marked an empty module as its own; what is found under the name
        # after this takes its place unmarked.
        assert module.__spec__ is not None
        sys.modules[module.__spec__.name] = import_module(self.name)
