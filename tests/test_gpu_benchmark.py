"""What the benchmark on GPUs does that needs none: its ops agree, its figures are the worst."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks import gpu

ROOT = Path(__file__).parents[1]
CASE = gpu.Case(2, (8, 9, 7), torch.float32, channels_last=True)


def test_inputs_are_as_the_case_says():
    ((A, G),) = CASE.inputs(torch.device("cpu"), 1)
    assert A.shape == G.shape == (2, 8, 9, 7)
    assert A.is_contiguous(memory_format=torch.channels_last)
    assert CASE.bytes == A.nbytes + G.nbytes
    assert str(CASE) == "2x8x9x7 nhwc float32"


def test_inputs_in_turn_are_more_than_the_cache_holds():
    for cache in (4 << 20, 96 << 20):
        large = gpu.Case(32, (256, 56, 56), torch.float32, channels_last=False)
        assert gpu.copies_of(large, cache) * large.bytes > cache
    assert gpu.copies_of(CASE, 96 << 20) == 256


def test_peers_compute_what_our_ops_do():
    ((A, G),) = CASE.inputs(torch.device("cpu"), 1)
    results = {name: op(A, G) for name, op in gpu.timed_ops({}).items()}
    for name in ("gradcam", "layercam"):
        torch.testing.assert_close(results[name][0][0], results[f"eager {name}"])
    torch.testing.assert_close(results["fused_cam"], results["eager fused_cam"])


@pytest.mark.parametrize("pixel_format", ["rgb24", "i420"])
def test_frames_are_of_the_size_that_is_told(pixel_format):
    frames = gpu.frames_call(torch.device("cpu"), pixel_format, 2)()
    pixels = 1360 * 448
    assert frames.shape == (2, 3 * pixels if pixel_format == "rgb24" else 3 * pixels // 2)


def seconds(**others):
    names = gpu.timed_ops({"gradcam": gpu.gradcam})
    return dict.fromkeys(names, 2.0) | {name.replace("_", " "): t for name, t in others.items()}


def test_a_claim_is_the_worst_case():
    large = gpu.Case(32, (64, 224, 224), torch.float32, channels_last=False)
    figures = {
        large: gpu.ratios(seconds(layercam=3.0, six_rules=5.0, eager_gradcam=8.0)),
        CASE: gpu.ratios(seconds(layercam=9.0, eager_gradcam=1.0)),
    }
    claims = {claim.name: claim for claim in gpu.claims(figures)}
    # Of small layers, starting kernels is most of it.
    assert claims["layercam / sum of A and G"].ratio == 1.5
    assert not claims["layercam / sum of A and G"].holds
    assert claims["gradcam / sum of A and G"].holds
    assert claims["eager gradcam / ours"].ratio == 0.5
    assert claims["compiled gradcam / ours"].holds
    assert claims["six rules / slowest rule"].ratio == round(5 / 3, 3)
    assert "compiled layercam / ours" not in claims


def test_without_a_gpu_it_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, "-m", "benchmarks", "gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "no CUDA device on this machine: nothing was measured\n"
