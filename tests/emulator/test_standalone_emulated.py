"""The program that checks kernels without torch passes on the emulator, and finds faults there."""

import pytest

from emulation import Emulator
from mutation import mutated_library
from worker_process import EmulatorError

FAULTS = [
    ("layer_cam_terms.cuh", "static_cast<double>(p.plane)", "(p.plane + 1.0)"),
    ("layer_cam_terms.cuh", "sum + relu(x * y)", "sum + x * y"),
    ("fused_cam_kernel.cuh", "(2 * i + 1) * size, divisor", "(2 * i + 2) * size, divisor"),
    ("render_frames_kernel.cuh", "row < 0 || row >= f.panel_height", "row < 1"),
]


@pytest.mark.slow
def test_its_checks_pass(emulator):
    emulator("standalone")(seeds=(0,))


@pytest.mark.slow
def test_its_checks_find_a_fault_in_each_op(require_compiler, tmp_path):
    run = Emulator(mutated_library("standalone", FAULTS, tmp_path))
    try:
        with pytest.raises(EmulatorError) as found:
            run(seeds=(0,))
    finally:
        run.close()
    for expected in (
        "gradcam: off by",
        "elementwise: off by",
        "fused_cam: off by",
        "render_frames",
    ):
        assert expected in str(found.value)
