"""Folders of results: made if need be, gone again if nothing came of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def made_folder(path: Path, option: str = "--out") -> Iterator[Path]:
    """Makes the folder and those above it; after a failure, those made are gone again if empty.

    Raises:
        ValueError: If a file is in its place.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    above = next(one for one in (path, *path.parents) if one.exists())
    if not above.is_dir():
        raise ValueError(f"{option}: expected a folder, got {str(path)!r}, and {above} is a file")
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield path
    except BaseException:
        with contextlib.suppress(OSError):
            for one in missing:
                one.rmdir()
        raise
