"""Every kernel of the compiled CUDA module is what it is stated to be, on every architecture."""

import re
from pathlib import Path

import pytest
from cuda_gates import GATES
from kernel_figures import ARCHITECTURES, KERNELS
from layer_cam_plan import Layer, plan

ROOT = Path(__file__).parents[2]


def test_the_figures_are_of_the_kernels_that_are_compiled(compiled):
    for architecture in ARCHITECTURES:
        found = {facts.key for facts in compiled if facts.architecture == architecture}
        assert found == set(KERNELS), f"sm_{architecture}: see tools/kernel_figures.py"
    assert {facts.architecture for facts in compiled} == set(ARCHITECTURES)


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.__name__)
def test_no_kernel_is_found_by_the_gate_for(gate, compiled):
    known = [facts for facts in compiled if facts.key in KERNELS]
    found = [fault for facts in known for fault in gate(facts, KERNELS[facts.key])]
    assert not found, "\n".join(found)


def test_the_architectures_are_those_that_cmake_compiles():
    text = (ROOT / "cmake" / "CudaSwitch.cmake").read_text()
    assert tuple(map(int, re.findall(r"(\d+)-real", text))) == ARCHITECTURES


@pytest.mark.parametrize("type", ["double", "float", "BFloat16", "Half"])
def test_shared_memory_at_typical_use_is_what_the_launcher_asks_for(type):
    layers = [Layer(1, 512, 28, 28, type)]
    for layout in ("nchw", "nhwc"):
        layers += [Layer(1, 256, 56, 56, type, layout), Layer(1, 255, 57, 57, type, layout)]
    asked = {
        launch.kernel: launch.shared
        for layer in layers
        for launch in plan(layer, rules=1, sums=True).launches
    }
    stated = {key: figures.shared for key, figures in KERNELS.items() if key in asked}
    assert stated == asked
    assert len(asked) == 9
