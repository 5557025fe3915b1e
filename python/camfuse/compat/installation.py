"""Faces under the names of the libraries whose faces they are, until they are taken out again."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

from camfuse.compat.exchange import Exchange
from camfuse.compat.replacement import Replacement

# Libraries of which more is used than camfuse has: what is left of them stays, if they are there.
_EXCHANGES = {
    "captum": Exchange("captum", by="camfuse.compat.captum.among_captum", after="captum.attr"),
}
FACES = ("pytorch_grad_cam", "torchcam", "captum")


def install(*names: str) -> None:
    """Puts faces where their libraries are imported from: ``import torchcam`` is camfuse's then.

    Libraries need not be installed. If captum is, it stays, as it has much more than Grad-CAM, and
    camfuse's ``LayerGradCam`` takes the place of its own; it is not imported for that, but met when
    it is.

    A face that is installed already stays as it is. Processes that are started afresh
    (``multiprocessing``'s ``spawn``) have none until they install it themselves.

    Args:
        names: Which: ``"pytorch_grad_cam"``, ``"torchcam"``, ``"captum"``; all by default.

    Raises:
        ValueError: If there is no such face.

    Warns:
        UserWarning: If a library was imported before: names taken from it stay what they were.
    """
    with _lock:
        imported = [name for name in _checked(names) if name not in _installed and _put_in(name)]
        if imported:
            warnings.warn(
                f"{', '.join(imported)}: imported before camfuse's face was installed; names that "
                "were taken from it stay what they were",
                stacklevel=2,
            )


def uninstall(*names: str) -> None:
    """Takes faces out, and puts back what was imported of their libraries before.

    Names that were taken from a face stay camfuse's. A face that is not installed is left alone.

    Args:
        names: Which; all by default.

    Raises:
        ValueError: If there is no such face.
    """
    with _lock:
        for name in _checked(names):
            if found := _installed.pop(name, None):
                found.take_out()
        if not _installed and _finder in sys.meta_path:
            sys.meta_path.remove(_finder)


class _Finder(MetaPathFinder):
    """Finds what installed faces have a say in."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = _installed.get(fullname.partition(".")[0])
        return found.find_spec(fullname, path, target, self) if found else None


_lock = threading.RLock()
_installed: dict[str, Replacement | Exchange] = {}
_finder = _Finder()


def _checked(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        if name not in FACES:
            raise ValueError(f"names: expected faces ({', '.join(FACES)}), got {name!r}")
    return names or FACES


def _put_in(name: str) -> bool:
    """Whether something of the library had been imported."""
    stays = name in _EXCHANGES and find_spec(name) is not None
    face = _EXCHANGES[name] if stays else Replacement(name)
    imported = face.put_in()
    _installed[name] = face
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    return imported
