"""The emulator runs right kernels as a GPU would, and finds what is wrong with faulty ones.

The kernels are in ``kernels_for_tests.cpp``; fault 0 is none.
"""

import os
import re
import shutil

import numpy as np
import pytest

import worker_process
from build import CACHE, CSRC, EMULATOR, BuildError, build
from emulation import LARGE, SMALL, Device, Emulator, In, InOut, Out, Work
from worker_process import EmulatorCrash, EmulatorError

KERNELS = EMULATOR / "kernels_for_tests.cpp"
MANY = range(20)


@pytest.fixture(scope="module")
def run(require_compiler):
    emulator = Emulator(build("kernels_for_tests", [KERNELS]))
    yield emulator
    emulator.close()


def numbers(*shape):
    return np.random.default_rng(0).random(shape, np.float32)


def sums(run, op, **options):
    """Sums of rows of 256 numbers, each by a block; or, for ops by warps, of rows of 32."""
    x = numbers(7, 256)
    rows = x if op == "block_sums" else x.reshape(-1, 32)
    done = run(op, x=In(x), sums=Out(len(rows), np.float32), blocks=7, **options)
    return done["sums"], rows.sum(1, dtype=np.float64)


def total(run, **options):
    """The sum of all numbers, of 9 blocks' sums."""
    x = numbers(9, 64)
    memory = {"parts": Work(9, np.float32), "counters": Work(2, np.uint32)}
    done = run("sum_by_last", x=In(x), sum=Out((), np.float32), blocks=9, **memory, **options)
    return done["sum"], x.sum(dtype=np.float64)


def copy(run, count, fault, **options):
    x, to = In(numbers(count), **options), Out(count, np.float32)
    return run("copy", x=x, copy=to, count=count, fault=fault)["copy"]


def barriers(run, threads, fault, **options):
    seen = Out(2 * threads, np.uint32)
    return run("barriers", seen=seen, threads=threads, fault=fault, **options)["seen"]


def fill(run, *, host=True, peek=False, **options):
    launch = {"blocks": 1, "threads": 32, "shared_bytes": 0} | options
    value = In(np.float32(1), host=host)
    return run("fill", value=value, to=Out(32, np.float32), peek=peek, **launch)["to"]


# Right kernels


@pytest.mark.parametrize("op", ["block_sums", "warp_sums", "shuffle_sums"])
def test_a_right_kernel_gives_the_same_with_all_seeds(run, op):
    got, expected = sums(run, op, fault=0, seeds=MANY)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_the_last_block_to_arrive_sees_what_the_others_wrote(run):
    got, expected = total(run, fault=0, seeds=MANY)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_lanes_outside_of_a_mask_may_have_ended(run):
    x = numbers(3, 2, 32)
    done = run("half_warp_sums", x=In(x), sums=Out((3, 2), np.float32), blocks=3, seeds=MANY)
    np.testing.assert_allclose(done["sums"], x[..., :16].sum(-1), rtol=1e-6)


def test_a_launch_that_failed_leaves_nothing_to_the_next_one(run):
    x, sums = numbers(3, 2, 32), Out((3, 2), np.float32)
    with pytest.raises(EmulatorError, match="deadlock"):
        barriers(run, 1024, fault=3)
    assert (barriers(run, 64, fault=0) == [*range(64)] * 2).all()
    run("half_warp_sums", x=In(x), sums=sums, blocks=3, seeds=MANY)


def test_a_seed_repeats_its_order(run):
    for seed in MANY:
        sums(run, "block_sums", fault=1, seeds=[seed, seed])


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.float32, np.float64])
@pytest.mark.parametrize("width", [32, 8])
@pytest.mark.parametrize("amount", [1, 5, 16])
def test_shuffles_move_what_cuda_says(run, dtype, width, amount):
    x = (numbers(32) * 1e9).astype(dtype)
    lane = np.arange(32)
    start = lane // width * width
    end = start + width
    source = np.stack(
        [
            start + amount % width,
            np.where(lane ^ amount < end, lane ^ amount, lane),
            np.where(lane + amount < end, lane + amount, lane),
            np.where(lane - amount >= start, lane - amount, lane),
        ]
    )
    results, ballots = Out((4, 32), dtype), Out((3, 32), np.uint32)
    op = f"shuffles_of_{np.dtype(dtype)}"
    done = run(op, x=In(x), results=results, ballots=ballots, amount=amount, width=width)
    np.testing.assert_array_equal(done["results"], x[source])
    assert (done["ballots"] == [[0xAAAAAAAA], [1], [0]]).all()


def test_all_halves_widen_exactly(run):
    halves = np.arange(1 << 16, dtype=np.uint16)
    done = run(
        "widen_halves",
        halves=In(halves),
        brains=In(halves),
        widened=Out((2, 1 << 16), np.float32),
        blocks=(1 << 16) // 256,
    )
    brains = (halves.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(done["widened"], [halves.view(np.float16), brains])


def test_integer_atomics_keep_extremes_and_sums(run):
    x = np.random.default_rng(0).integers(-(2**31), 2**31, 128).astype(np.int32)
    start = {"range": InOut(np.zeros(3, np.int32)), "bits": InOut(np.zeros(1, np.uint32))}
    done = run("extremes", x=In(x), **start, seeds=MANY)
    np.testing.assert_array_equal(done["range"], [x.min(), x.max(), x.sum(dtype=np.int32)])
    assert done["bits"] == x.view(np.uint32).max()


@pytest.mark.parametrize("device", [SMALL, LARGE, Device(7, 1 << 16)])
def test_launchers_see_the_device_that_a_test_wants(run, device):
    seen = run("see_device", seen=Out(2, np.int64), device=device)["seen"]
    assert seen.tolist() == [device.multiprocessors, device.shared_bytes]


def test_arguments_come_as_they_are(run):
    x = numbers(5, 6, 7)[:4, 2, ::2]
    seen = InOut(np.zeros(7), host=True)
    given = {"real": 2.5, "integer": -(2**40), "flag": True, "none": None}
    seen = run("arguments", x=In(x, offset=3), seen=seen, **given)["seen"]
    assert seen.tolist() == [2.5, -(2**40), 1, 1, 404, 4202, 12]


@pytest.mark.parametrize("offset", range(4))
def test_arrays_lie_as_far_from_alignment_as_wanted(run, offset):
    np.testing.assert_array_equal(copy(run, 256, fault=0, offset=offset), numbers(256))


# Faulty kernels


@pytest.mark.parametrize("fault", [1, 2], ids=["after loads", "in the tree"])
def test_a_missing_barrier_is_found(run, fault):
    with pytest.raises(AssertionError, match=r"sums depends on the seed: \d of 7 elements, first"):
        sums(run, "block_sums", fault=fault)


def test_lanes_that_do_not_wait_for_one_another_are_found(run):
    with pytest.raises(AssertionError, match="sums depends on the seed"):
        sums(run, "warp_sums", fault=1)


def test_shared_memory_that_no_one_wrote_is_found(run):
    with pytest.raises(AssertionError, match="sums depends on the seed"):
        sums(run, "block_sums", fault=3)


@pytest.mark.parametrize(
    ("fault", "access"),
    [(1, "READ"), (2, "WRITE"), (3, "WRITE")],
    ids=["global read", "global write", "shared"],
)
@pytest.mark.parametrize("offset", [0, 1])
def test_an_access_out_of_bounds_is_found(run, fault, access, offset):
    place = r"0 bytes (after|to the right of) 40\d-byte region"
    report = rf"(?s)heap-buffer-overflow.*{access} of size 4.* {place}"
    with pytest.raises(EmulatorCrash, match=report):
        copy(run, 100, fault, offset=offset)


def test_the_report_of_a_crash_says_where_arrays_lie(run):
    with pytest.raises(EmulatorCrash) as caught:
        copy(run, 10, fault=1)
    report = str(caught.value)
    address = re.search(r"on address (0x\w+)", report)[1]
    assert re.search(rf"x \(device\): 40 bytes, \w+ to {address}", report)


def test_a_crash_leaves_a_worker_to_the_next_call(run):
    for fault in (1, 2):
        with pytest.raises(EmulatorCrash):
            copy(run, 100, fault)
    np.testing.assert_array_equal(copy(run, 100, fault=0), numbers(100))


def test_a_misaligned_wide_load_is_found(run):
    memory = {"x": In(numbers(160), offset=1), "copy": Out(160, np.float32)}
    with pytest.raises(EmulatorError) as caught:
        run("wide_copy", **memory, packs=40, fault=0)
    error, _, stack_trace = str(caught.value).partition("\n")
    assert re.fullmatch(
        r"block \d, thread \d+: loads 16 bytes from 0x\w+, which is not aligned to 16", error
    )
    assert re.search(r"wide_copy.*kernels_for_tests.cpp:\d+", stack_trace)


def test_a_wide_load_past_the_end_is_found(run):
    memory = {"x": In(numbers(158)), "copy": Out(160, np.float32)}
    with pytest.raises(EmulatorCrash, match=r"(?s)heap-buffer-overflow.*READ of size 16"):
        run("wide_copy", **memory, packs=40, fault=0)


def test_an_unwritten_output_is_found(run):
    memory = {"x": In(numbers(160)), "copy": Out(160, np.float32)}
    assert (run("wide_copy", **memory, packs=40, fault=0)["copy"] == numbers(160)).all()
    with pytest.raises(AssertionError, match=r"copy depends .* 4 of 160 elements, first \(156,\)"):
        run("wide_copy", **memory, packs=40, fault=1)


BARRIER = r"__syncthreads\(\) \(\S+\.cpp:\d+\)"
BALLOT = r"__ballot_sync\(\) with mask 0xffffffff"
XOR = r"__shfl_xor_sync\(\) with mask 0x"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (1, f"ended, but .* waits for it at {BARRIER}|at {BARRIER}, but thread 63 has ended"),
        (2, f"waits at {BARRIER}, but thread .* at {BARRIER}"),
        (3, rf"deadlock in block \d; 63 .* 0, wait at {BARRIER}; 1 .* 63, wait at __syncwarp\(\)"),
    ],
    ids=["end", "another barrier", "deadlock"],
)
def test_a_barrier_that_not_all_threads_reach_is_found(run, fault, error):
    assert (barriers(run, 64, fault=0) == [*range(64)] * 2).all()
    for seed in MANY:
        with pytest.raises(EmulatorError, match=error):
            barriers(run, 64, fault, seeds=[seed])


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (1, f"waits for it at {XOR}|waits at {XOR}.*, but lanes 0x80000000 have ended"),
        (2, f"waits at {XOR}.* at {BALLOT}|waits at {BALLOT}.* at {XOR}"),
        (3, f"reads lane .*, which is not in the mask, at {XOR}"),
        (4, f"is not in the mask of its {XOR}"),
    ],
    ids=["end", "another intrinsic", "read", "itself"],
)
def test_a_shuffle_that_lanes_are_missing_from_is_found(run, fault, error):
    for seed in MANY:
        with pytest.raises(EmulatorError, match=error):
            sums(run, "shuffle_sums", fault=fault, seeds=[seed])


def test_sums_in_the_order_of_arrival_are_found(run):
    with pytest.raises(AssertionError, match="sum depends on the seed"):
        total(run, fault=1, seeds=MANY)


def test_counters_that_no_one_zeroed_are_found(run):
    with pytest.raises(AssertionError, match="sum depends on the seed"):
        total(run, fault=2)


def test_a_changed_input_is_found(run):
    memory = {"value": In(np.float32(1), host=True), "to": In(numbers(32))}
    with pytest.raises(EmulatorError, match="the op changed its input to"):
        run("fill", **memory, blocks=1, threads=32, shared_bytes=0, peek=False)


def test_the_host_is_kept_from_device_memory(run):
    assert (fill(run) == 1).all()
    with pytest.raises(EmulatorCrash, match=r"(?s)use-after-poison.*to \(device\): 128 bytes"):
        fill(run, peek=True)
    with pytest.raises(EmulatorCrash, match=r"(?s)use-after-poison.*value \(device\): 4 bytes"):
        fill(run, host=False)


def test_kernels_are_kept_from_host_memory(run):
    with pytest.raises(EmulatorCrash, match=r"(?s)use-after-poison.*x \(host\): 400 bytes"):
        copy(run, 100, fault=0, host=True)


def test_a_kernel_without_end_is_ended(run, monkeypatch):
    run.close()  # hence a worker, and its patience, of this call's own
    monkeypatch.setattr(worker_process, "PATIENCE", 1.0)
    with pytest.raises(EmulatorCrash, match=r"no answer in 1.0 s"):
        run("spin", flag=Work(1, np.uint32))


# Calls


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"threads": 1025}, "1025 threads a block, a device takes 1 to 1024"),
        ({"blocks": 1 << 31}, "fill: 2147483648 blocks are more than a launch can have"),
        ({"shared_bytes": (48 << 10) + 1}, "49153 bytes of shared memory, the device has 49152"),
    ],
    ids=["threads", "blocks", "shared memory"],
)
def test_a_launch_that_the_device_refuses_is_an_error(run, options, error):
    with pytest.raises(EmulatorError, match=error):
        fill(run, device=SMALL, **options)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"threads": None}, "threads must be an integer"),
        ({"threads": 32.0}, "threads must be an integer"),
        ({"value": 1}, "value must be an array or None"),
        ({"value": In(np.float64(1), host=True)}, "value has items of 8 bytes, expected 4"),
        ({"more": 1}, "the op has no argument more"),
    ],
)
def test_an_argument_that_an_op_does_not_want_is_an_error(run, change, error):
    wanted = {"value": In(np.float32(1), host=True), "to": Out(32, np.float32)}
    wanted |= {"blocks": 1, "threads": 32, "shared_bytes": 0, "peek": False}
    with pytest.raises(EmulatorError, match=error):
        run("fill", **wanted | change)


def test_a_missing_argument_is_an_error(run):
    with pytest.raises(EmulatorError, match="argument value is missing"):
        run("fill", to=Out(32, np.float32))


def test_an_unknown_op_is_an_error(run):
    with pytest.raises(EmulatorError, match="undefined symbol: op_paint"):
        run("paint")


# Builds


def test_a_changed_copy_of_the_sources_is_another_library(run, tmp_path):
    csrc = shutil.copytree(CSRC, tmp_path / "csrc")
    assert build("kernels_for_tests", [KERNELS], csrc=csrc) == run.library
    device = csrc / "cuda" / "device.cuh"
    device.write_text(device.read_text().replace("+ 1 == count", "== count"))
    changed = Emulator(build("kernels_for_tests", [KERNELS], csrc=csrc))
    assert changed.library != run.library
    try:
        with pytest.raises(AssertionError, match="sum depends on the seed"):
            total(changed, fault=0)  # no block is ever the last
    finally:
        changed.close()


def test_compile_errors_are_shown(require_compiler, tmp_path):
    source = tmp_path / "wrong.cpp"
    source.write_text("int f() { return undeclared; }\n")
    with pytest.raises(BuildError, match=r"undeclared.* was not declared"):
        build("wrong", [source])
    assert not list(CACHE.glob("wrong*"))


def test_other_processors_switch_threads_by_ucontext(run, monkeypatch):
    monkeypatch.setenv("CXX", f"{os.environ.get('CXX', 'c++')} -DEMULATOR_UCONTEXT")
    other = Emulator(build("kernels_for_tests", [KERNELS]))
    assert other.library != run.library
    try:
        got, expected = sums(other, "block_sums", fault=0)
        np.testing.assert_allclose(got, expected, rtol=1e-6)
        with pytest.raises(EmulatorError, match=r"have ended|waits for it"):
            sums(other, "shuffle_sums", fault=1)
    finally:
        other.close()
