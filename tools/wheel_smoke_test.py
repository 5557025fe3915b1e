"""What an installed camfuse must do in an environment that holds its dependencies and no compiler.

Usage: python -I tools/wheel_smoke_test.py TORCH_VERSION, with camfuse installed from a wheel.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import camfuse
from camfuse import _C, ops, reference

COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "nvcc", "cmake", "ninja", "ffmpeg")
A, G = torch.randn(2, 2, 9, 13, 17, generator=torch.Generator().manual_seed(0))


def error_of(kind: type[Exception], call: Callable[[], object]) -> str:
    """What an error that a call must raise says."""
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__} was raised")


def check_environment(version: str) -> None:
    """The very torch that was asked for, camfuse from the environment, no compiler, no ffmpeg."""
    assert torch.__version__.split("+")[0] == version, torch.__version__
    assert Path(camfuse.__file__).is_relative_to(sys.prefix), camfuse.__file__
    found = [name for name in COMPILERS if shutil.which(name)]
    assert not found, found


def check_cuda() -> str:
    """CUDA code is there; it runs on a GPU, and says what is missing without one."""
    info = camfuse.build_info()
    assert info["cuda"] is True
    assert info["cuda_architectures"]
    if torch.cuda.is_available():
        assert _C.cuda_probe(100_000) == 4_999_950_000
        return f"{info['cuda_architectures']}; runs on {torch.cuda.get_device_name()}"
    message = error_of(RuntimeError, lambda: _C.cuda_probe(10))
    return f"{info['cuda_architectures']}; without a GPU: {message}"


def check_maps() -> None:
    """``layer_cam`` and ``fused_cam`` agree with their reference in f64."""
    rules = [rule for rule in ops.RULES if "weighted" not in rule]
    maps, ranges = ops.layer_cam(A, G, rules)
    expected, _ = reference.layer_cam(A.double(), G.double(), rules)
    torch.testing.assert_close(maps.double(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(ranges[..., 0], maps.amin((2, 3)))
    for rule in rules:
        heat = ops.fused_cam(A, G, rule, (50, 31))
        expected_heat = reference.fused_cam(A.double(), G.double(), rule, (50, 31))
        torch.testing.assert_close(heat.double(), expected_heat, rtol=0, atol=1e-4)


def check_frames() -> None:
    """``render_frames`` makes the reference's pixels, but for one level of rounding."""
    maps, ranges = ops.layer_cam(A.double(), G.double(), ["gradcam"])
    grey = torch.arange(256, dtype=torch.uint8)[:, None].repeat(1, 3)
    photograph = torch.arange(24 * 32 * 3).reshape(24, 32, 3).to(torch.uint8)
    panels = [("source", 0, 0, 0), ("layer", 0, 0, 32), ("global", 0, 0, 64)]
    for pixels in ("rgb24", "i420", "nv12"):
        arguments = (
            *(maps.flatten(), [0, 13 * 17], [(13, 17)] * 2, ranges.view(2, 1, 2)),
            *(ranges.view(2, 2)[:1], photograph, grey, panels, (24, 96)),
        )
        frames = ops.render_frames(*arguments, pixel_format=pixels)
        expected = reference.render_frames(*arguments, pixel_format=pixels)
        assert frames.shape == expected.shape
        assert (frames.int() - expected.int()).abs().max() <= 1


def check_errors() -> None:
    """An exception of C++ passes through torch and arrives as the right one of Python."""
    message = error_of(ValueError, lambda: ops.layer_cam(A, G[:, :, :5], ["gradcam"]))
    assert "gradients must have the shape of activations" in message, message


def check_tracing() -> None:
    """Schema, fake kernels, autograd and tracing fit together."""
    op = torch.ops.camfuse.layer_cam.default
    results = torch.library.opcheck(op, (A.clone().requires_grad_(), G, [0, 5]))
    assert set(results.values()) == {"SUCCESS"}, results


def check_video(folder: Path) -> str:
    """Maps of a model, a file of them, a video, by the ffmpeg that imageio-ffmpeg carries."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3)
    )
    model = nn.Sequential(model, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    image = torch.rand(1, 3, 32, 32)

    stack = camfuse.layer_cams(model, image, method="layercam")
    assert stack.names == ("0.0", "0.1", "0.2", "0.3"), stack.names
    activations = model[0](image)
    (gradients,) = torch.autograd.grad(model[1:](activations).amax(), activations)
    expected, _ = reference.layer_cam(activations, gradients, ["layercam"])
    torch.testing.assert_close(stack["0.3"], expected[0].detach())

    loaded = camfuse.load_stack(camfuse.save_stack(stack, folder / "maps.safetensors"))
    assert torch.equal(loaded["0.0"], stack["0.0"])

    result = camfuse.animate(model, image[0], folder / "video.mp4", size=64)
    assert result.frames == len(stack.names)
    assert result.path.read_bytes()[4:8] == b"ftyp"
    return f"{result.frames} frames, {result.bytes_written} bytes"


def check_command() -> str:
    """The command was installed, and says the same as the module."""
    command = [Path(sys.executable).with_name("camfuse"), "info", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert report["version"] == camfuse.__version__
    assert report["build"] == camfuse.build_info()
    return f"camfuse {report['version']}, ffmpeg {report['ffmpeg']['version']}"


def main(version: str) -> None:
    """Runs every check; the first that fails ends it."""
    check_environment(version)
    print(f"  torch {torch.__version__}, Python {sys.version.split()[0]}")
    print(f"  CUDA code for {check_cuda()}")
    check_maps()
    check_frames()
    check_errors()
    check_tracing()
    print("  ops agree with their reference, in eager mode and traced")
    with tempfile.TemporaryDirectory() as folder:
        print(f"  video: {check_video(Path(folder))}")
    print(f"  command: {check_command()}")


if __name__ == "__main__":
    main(sys.argv[1])
