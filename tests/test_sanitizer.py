"""The sanitized build (`make sanitize`): it reports what kernels may not do, and ours do not."""

import ctypes
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from camfuse import _C, ops
from test_render_frames import make_scene

ISAS = _C.build_info()["isa_supported"].split(",")


@pytest.fixture(autouse=True)
def sanitizer():
    if not hasattr(ctypes.CDLL(None), "__asan_poison_memory_region"):
        if os.environ.get("CAMFUSE_REQUIRE_SANITIZER") == "1":
            pytest.fail("AddressSanitizer is not loaded, but CAMFUSE_REQUIRE_SANITIZER=1")
        pytest.skip("not the sanitized build, see `make sanitize`")


def forbid(tensor, begin, end):
    """Whoever touches the elements [begin, end), counted along the memory, is reported."""
    size = tensor.element_size()
    ctypes.CDLL(None).__asan_poison_memory_region(
        ctypes.c_void_p(tensor.data_ptr() + begin * size), ctypes.c_size_t((end - begin) * size)
    )


def lines(count, length, gap, dtype):
    """A tensor [count, length] with forbidden gaps behind its lines."""
    memory = torch.randn(count, length + gap).to(dtype)
    for line in range(count):
        forbid(memory, line * (length + gap) + length, (line + 1) * (length + gap))
    return memory[:, :length]


def planes(B, C, h, w, gap, dtype):
    """A layer [B, C, h, w] with forbidden gaps behind its planes."""
    return lines(B * C, h * w, gap, dtype).unflatten(1, (h, w)).unflatten(0, (B, C))


def rows(B, C, h, w, gap, dtype):
    """A layer [B, C, h, w], channels last, with forbidden gaps behind its positions."""
    return lines(B * h * w, C, gap, dtype).unflatten(0, (B, h, w)).permute(0, 3, 1, 2)


def short(tensor):
    """The tensor, whose memory now ends one element early."""
    tensor.untyped_storage().resize_(tensor.nbytes - tensor.element_size())
    return tensor


def layer(C, h, w, memory_format=torch.contiguous_format):
    return torch.empty(1, C, h, w, memory_format=memory_format).fill_(1)


def misaligned(shape):
    memory = bytearray(1 + 4 * torch.Size(shape).numel())
    return torch.frombuffer(memory, dtype=torch.float32, offset=1).view(shape)


def cut_plane():
    one = layer(4, 8, 10)
    forbid(one, 79, 80)
    return one


def cam(rule, activations):
    ops.layer_cam(activations, torch.ones_like(activations), [rule])


def render(pixel_format):
    scene = make_scene(dtype=torch.float32, pixel_format=pixel_format)
    replace(scene, maps=short(scene.maps.clone())).native()


ADDRESS, UNDEFINED = "ERROR: AddressSanitizer", "runtime error: load of misaligned address"
# What kernels are made to do, the report it must bring, and where.
FAULTS = {
    "past planes": (lambda: cam("layercam", short(layer(4, 9, 9))), ADDRESS, "add_planes"),
    "past copied planes": (lambda: cam("layercam", short(layer(4, 1, 2))), ADDRESS, "planes"),
    "past channels": (
        lambda: cam("layercam", short(layer(64, 3, 3, torch.channels_last))),
        ADDRESS,
        "row_maps",
    ),
    "past one plane": (lambda: cam("hirescam", cut_plane()), ADDRESS, "add_planes"),
    "past maps (rgb24)": (lambda: render("rgb24"), ADDRESS, "wide_row"),
    "past maps (i420)": (lambda: render("i420"), ADDRESS, "wide_row"),
    "no float's address": (
        lambda: ops.fused_cam(
            misaligned((1, 1, 1, 2)), misaligned((1, 1, 1, 2)), "gradcam", (2, 2)
        ),
        UNDEFINED,
        "planes",
    ),
}


def report_of(fault):
    """What a process prints that commits a fault, and whether it comes to an end of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 2)
        fault()
        os._exit(0)
    os.close(write)
    with os.fdopen(read, errors="replace") as pipe:
        report = pipe.read()
    return report, os.waitpid(child, 0)[1] == 0


def touch_all_but_the_gaps():
    """Calls ops with layers whose planes, or positions, have forbidden gaps between them."""
    dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    shapes = ((2, 5, 1, 7), (2, 67, 7, 7), (1, 130, 5, 13), (1, 9, 63, 65))
    for dtype, layout, shape in itertools.product(dtypes, (planes, rows), shapes):
        A, G = layout(*shape, 16, dtype), layout(*shape, 16, dtype)
        weights = lines(shape[0], shape[1], 16, dtype)
        ops.layer_cam(A, G, ops.RULES, weights=weights)
        for rule in ops.RULES:
            given = weights if "weighted" in rule else None
            ops.layer_cam(A, G, [rule], weights=given)
            ops.fused_cam(A, G, rule, (11, 17), weights=given)


def run(isa, expression):
    """The value of an expression on this module, `t`, in a process that uses `isa`."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import json, test_sanitizer as t; print(json.dumps({expression}))",
        ],
        env={**os.environ, "CAMFUSE_ISA": isa, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("isa", ISAS)
def test_faults_of_kernels_are_reported(isa):
    reports = run(isa, "{name: t.report_of(fault) for name, (fault, *_) in t.FAULTS.items()}")
    for name, (report, survived) in reports.items():
        _, kind, function = FAULTS[name]
        assert not survived, name
        assert kind in report, report
        place = re.compile(rf"camfuse::{isa}::.*{function}")
        assert place.search(report), report


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_between_planes_and_positions_is_touched(isa):
    run(isa, "t.touch_all_but_the_gaps()")
