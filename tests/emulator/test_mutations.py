"""Each fault put into the CUDA code is found by the check it is named with.

Each is a library of its own, which takes seconds to compile: `make test` takes every tenth, `make
test-all` all.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

import mutations_impute
import mutations_layer_cam
import mutations_principal_map
import mutations_render_frames
from emulation import Emulator
from mutation import mutated_library
from worker_process import EmulatorCrash, EmulatorError

OPS = {
    "impute": mutations_impute,
    "layer_cam": mutations_layer_cam,
    "principal_map": mutations_principal_map,
    "render_frames": mutations_render_frames,
}
EVERY = 10
MUTATIONS = [
    pytest.param(op, one, id=f"{op}-{one.why}", marks=[pytest.mark.slow] if place % EVERY else [])
    for op, faults in OPS.items()
    for place, one in enumerate(faults.MUTATIONS)
]


@pytest.fixture(scope="module")
def mutants(request, require_compiler, tmp_path_factory):
    """The library of each mutation that is wanted, and of none."""
    here = [item for item in request.session.items if item.path == request.path]
    chosen = [item.callspec.params for item in here]
    wanted = [(one["op"], one.get("mutation")) for one in chosen]

    def build(place, op, mutation):
        edits = [*OPS[op].BEFORE]
        if mutation is not None:
            edits.append((mutation.file, mutation.old, mutation.new))
        return mutated_library(op, edits, tmp_path_factory.getbasetemp() / f"mutant{place}")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        libraries = pool.map(build, range(len(wanted)), *zip(*wanted, strict=True))
        return dict(zip(wanted, libraries, strict=True))


@pytest.fixture
def emulator_of(mutants):
    running = []

    def start(op, mutation):
        running.append(Emulator(mutants[op, mutation]))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.mark.parametrize("op", OPS)
def test_without_a_fault_every_check_passes(emulator_of, op):
    checks = {one.check: None for one in OPS[op].MUTATIONS}
    run = emulator_of(op, None)
    for check in checks:
        check(run)


@pytest.mark.parametrize(("op", "mutation"), MUTATIONS)
def test_a_fault_is_found(emulator_of, op, mutation):
    with pytest.raises((AssertionError, EmulatorError, EmulatorCrash)):
        mutation.check(emulator_of(op, mutation))
