"""Folders of results: made if need be, gone again if nothing came of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def made_folder(path: Path, option: str = "--out") -> Iterator[Path]:
    """Makes the folder and those above it; of those made, the empty ones are gone again at the end.

    Raises:
        ValueError: If a file, or a link that leads nowhere, is in its place.
    """
    missing = [one for one in (path, *path.parents) if not os.path.lexists(one)]
    above = next(one for one in (path, *path.parents) if os.path.lexists(one))
    if not above.is_dir():
        what = "a file" if above.exists() else "a link that leads nowhere"
        raise ValueError(f"{option}: expected a folder, got {str(path)!r}, and {above} is {what}")
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield path
    finally:
        for one in missing:
            with contextlib.suppress(OSError):
                one.rmdir()
