"""Silence for a while, one thread at a time: filters of warnings belong to the whole process."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_filters = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """No warning is shown inside."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
