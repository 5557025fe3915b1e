"""Every build of the kernels that this processor can run, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from camfuse import _C

SUPPORTED = _C.build_info()["isa_supported"].split(",")
CHECK = """
import torch
from camfuse import _C, ops, reference
from imputation import masks, photograph
from principal import arguments, assert_principal
from test_layer_cam import DTYPES, LAYOUTS, layer
from tolerances import assert_maps_close

assert _C.build_info()["isa"] == "{isa}"
for dtype in DTYPES:
    for layout in LAYOUTS.values():
        for shape in [(2, 3, 1, 7), (2, 31, 7, 7), (1, 130, 13, 17), (1, 16, 16, 1)]:
            A, G, weights = layer(shape, dtype)
            A, G = layout(A), layout(G)
            maps, ranges = ops.layer_cam(A, G, ops.RULES, weights=weights)
            assert_maps_close(maps, ranges, A, G, ops.RULES, weights)
            fused = ops.fused_cam(A, G, "layercam", (50, 31))
            expected = reference.fused_cam(A.double(), G.double(), "layercam", (50, 31))
            assert (fused.double() - expected).abs().max() < 2e-5
            for terms in ops.TERMS:
                a, g, w = arguments(terms, (A, G, weights))
                assert_principal(ops.principal_map(a, g, terms, weights=w), a, g, terms, w)
for size in [(1, 7), (31, 18), (45, 64)]:
    image, removed = photograph(2, *size), torch.stack(list(masks(*size).values()))
    found = ops.impute(image, removed, tolerance=1e-9)
    assert (found - reference.impute(image, removed)).abs().max() < 1e-4
"""


def run(isa, code):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "CAMFUSE_ISA": isa,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("isa", SUPPORTED)
def test_each_build_agrees_with_reference(isa):
    done = run(isa, CHECK.format(isa=isa))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("isa", ["avx512", "V3", "v5"])
def test_an_unknown_instruction_set_is_an_error(isa):
    done = run(isa, "import torch; from camfuse import _C; _C.build_info()")
    assert done.returncode != 0
    assert (
        f"CAMFUSE_ISA must be one of {','.join(SUPPORTED)} on this processor, got '{isa}'"
        in done.stderr
    )
