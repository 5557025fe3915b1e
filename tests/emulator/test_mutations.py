"""Each fault put into the CUDA code is found by the check it is named with."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

import layer_cam_checks
from emulation import Emulator
from mutation import mutated_library
from mutations_layer_cam import MUTATIONS, ONLY_F32
from worker_process import EmulatorCrash, EmulatorError


@pytest.fixture(scope="module")
def mutants(require_compiler, tmp_path_factory):
    """The library of each mutation, and of none."""
    edits = {None: []} | {one: [(one.file, one.old, one.new)] for one in MUTATIONS}

    def build(edit):
        return mutated_library("layer_cam", [*ONLY_F32, *edit], tmp_path_factory.mktemp("mutant"))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(edits, pool.map(build, edits.values()), strict=True))


@pytest.fixture
def emulator_of(mutants):
    running = []

    def start(mutation):
        running.append(Emulator(mutants[mutation]))
        return running[0]

    yield start
    for one in running:
        one.close()


@pytest.mark.parametrize("check", [one for one in vars(layer_cam_checks) if "check_" in one])
def test_the_code_itself_passes(emulator_of, check):
    if not check.startswith("_"):
        getattr(layer_cam_checks, check)(emulator_of(None))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.why)
def test_a_fault_is_found(emulator_of, mutation):
    with pytest.raises((AssertionError, EmulatorError, EmulatorCrash)):
        mutation.check(emulator_of(mutation))
