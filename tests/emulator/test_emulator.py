"""The emulator runs right kernels as a GPU would, and finds what is wrong with faulty ones."""

import numpy as np
import pytest

from build import EMULATOR, build
from emulation import Emulator, In, Out


@pytest.fixture(scope="module")
def run(require_compiler):
    emulator = Emulator(build("kernels_for_tests", [EMULATOR / "kernels_for_tests.cpp"]))
    yield emulator
    emulator.close()


def numbers(*shape):
    return np.random.default_rng(0).random(shape, np.float32)


def block_sums(run, fault):
    x = numbers(7, 256)
    return x, run("block_sums", x=In(x), sums=Out(7, np.float32), blocks=7, fault=fault)["sums"]


def test_sums(run):
    x, sums = block_sums(run, fault=0)
    np.testing.assert_allclose(sums, x.sum(1), rtol=1e-5)


@pytest.mark.parametrize("fault", [1, 2], ids=["after loads", "in tree"])
def test_a_missing_barrier_is_found(run, fault):
    with pytest.raises(AssertionError, match="sums depends on the seed"):
        block_sums(run, fault)
