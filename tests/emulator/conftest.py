"""The ``emulator`` fixture."""

import os

import pytest

from build import library, missing
from emulation import Emulator


@pytest.fixture(scope="session")
def require_compiler():
    """Skips where the emulator cannot be built."""
    if (reason := missing()) is None:
        return
    if os.environ.get("CAMFUSE_REQUIRE_EMULATOR") == "1":
        pytest.fail(f"{reason}, but CAMFUSE_REQUIRE_EMULATOR=1")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def emulator(require_compiler):
    """A function from the name of an op to its Emulator."""
    running = {}

    def get(name):
        if name not in running:
            running[name] = Emulator(library(name))
        return running[name]

    yield get
    for one in running.values():
        one.close()
