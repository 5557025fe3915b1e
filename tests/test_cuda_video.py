"""From a model on a CUDA device to a video: the frames of the CPU, rendered there."""

from __future__ import annotations

import gc
import itertools
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

import camfuse
from camfuse.cli import main
from camfuse.devices import runs_on
from camfuse.video import find_ffmpeg
from test_cuda_capture import make

pytestmark = pytest.mark.cuda
DEVICE = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def cat() -> np.ndarray:
    return data.cat()


@pytest.fixture(scope="module")
def stacks() -> tuple[camfuse.CamStack, camfuse.CamStack]:
    """The same maps on the CPU and on the device."""
    model = make()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    options = {"method": ["gradcam", "layercam"], "target": camfuse.Each([None, 1])}
    here = camfuse.layer_cams(model, x, **options).shown()
    there = camfuse.layer_cams(model.to(DEVICE), x.to(DEVICE), **options).shown()
    assert there.flat.device == DEVICE
    return here, there


def all_of(frames: camfuse.Frames) -> Tensor:
    return torch.cat(list(frames))


def assert_within_a_level(got: Tensor, expected: Tensor) -> None:
    """Maps of two devices differ by rounding, so that few colours are the next in the table."""
    assert got.shape == expected.shape
    difference = (got.int() - expected.int()).abs()
    assert (difference > 1).double().mean() < 1e-3
    assert difference.max() <= 8


@pytest.mark.parametrize("pixel_format", ["rgb24", "i420", "nv12"])
@pytest.mark.parametrize("chunk", [None, 1, 5])
def test_frames_are_those_of_the_cpu(stacks, cat, pixel_format, chunk) -> None:
    here, there = (
        camfuse.render(one, cat, size=120, pixel_format=pixel_format, chunk=chunk, curve="evidence")
        for one in stacks
    )
    got = all_of(there)
    assert got.device.type == "cpu"
    assert_within_a_level(got, all_of(here))


def test_the_very_same_maps_make_frames_within_a_level(stacks, cat) -> None:
    there = stacks[1]
    got, expected = (all_of(camfuse.render(one, cat, size=120)) for one in (there, there.cpu()))
    assert (got.int() - expected.int()).abs().max() <= 1


def test_single_frames_pictures_and_sheets_come_from_the_device_too(stacks, cat) -> None:
    here, there = (one.select(method="gradcam", target=0) for one in stacks)
    frames = camfuse.render(there, cat, size=96)
    assert torch.equal(frames.frame(-1).flatten(), all_of(frames)[-1])
    for make_picture in (
        lambda stack: camfuse.still(stack, cat, 0, size=96),
        lambda stack: camfuse.sheet(stack, cat, size=64).to_image(),
    ):
        got, expected = (torch.from_numpy(np.array(make_picture(s))) for s in (there, here))
        assert_within_a_level(got, expected)
    assert camfuse.key_layers(there, 3) == camfuse.key_layers(here, 3)


def test_stacks_on_several_devices_are_compared_on_the_first(stacks, cat) -> None:
    here, there = (one.select(method="gradcam", target=0) for one in stacks)
    expected = all_of(camfuse.render([here, here], cat, size=96))
    for pair in ((here, there), (there, here)):
        assert_within_a_level(all_of(camfuse.render(pair, cat, size=96)), expected)


def test_chunks_keep_what_they_show_while_many_others_come(stacks, cat) -> None:
    frames = camfuse.render(stacks[1], cat, size=96, chunk=1)
    kept = list(frames)
    assert len(kept) > 8
    expected = [one.clone() for one in kept]
    for _ in range(5):
        all_of(frames)
    torch.cuda.synchronize()
    assert all(torch.equal(one, other) for one, other in zip(kept, expected, strict=True))


def test_an_iterator_that_is_abandoned_leaves_no_memory(stacks, cat) -> None:
    frames = camfuse.render(stacks[1], cat, size=96, chunk=1)
    all_of(frames)
    torch.cuda.synchronize()
    gc.collect()
    before = torch.cuda.memory_allocated(DEVICE)
    for taken in (0, 1, 4):
        chunks = iter(frames)
        assert len(list(itertools.islice(chunks, taken))) == taken
        del chunks
    torch.cuda.synchronize()
    all_of(frames)  # the allocator looks at what was still in use
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated(DEVICE) == before


@pytest.mark.skipif(
    not runs_on("render_frames", DEVICE), reason="this build renders on the CPU: it copies once"
)
def test_rendering_waits_for_no_stream_but_its_own(stacks, cat) -> None:
    frames = camfuse.render(stacks[1], cat, size=96, chunk=2)
    expected = all_of(frames)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(2_000_000_000)
        behind = torch.cuda.Event()
        behind.record()
        got = all_of(frames)
        assert not behind.query()  # another stream is at work still
    assert torch.equal(got, expected)


def test_a_model_spec_on_a_device_makes_the_video_of_the_cpu(cat, tmp_path: Path) -> None:
    results = {}
    for device in ("cpu", "cuda"):
        results[device] = camfuse.animate(
            "torchvision:resnet18",
            cat,
            tmp_path / f"{device}.mkv",
            weights="random",
            device=device,
            size=96,
            layers="conv",
        )
    here, there = results["cpu"], results["cuda"]
    assert there.stack.flat.device.type == "cuda"
    assert there.stack.names == here.stack.names
    assert there.video.frames == here.video.frames
    decoded = [_decoded(tmp_path / f"{device}.mkv") for device in results]
    difference = np.abs(decoded[0].astype(int) - decoded[1].astype(int))
    assert (difference > 2).mean() < 0.01  # convolutions of f32, maybe TF32


def _decoded(path: Path) -> np.ndarray:
    command = [find_ffmpeg(), "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.uint8)


@pytest.mark.parametrize("side_stream", [False, True])
def test_a_folder_becomes_the_same_videos_on_any_stream(
    cat, tmp_path: Path, side_stream: bool
) -> None:
    (tmp_path / "photographs").mkdir()
    for i in range(5):
        camfuse.read_image(np.roll(cat, 40 * i, 1)).save(tmp_path / f"photographs/{i}.png")
    model = make(dtype=torch.float32).to(DEVICE)
    options = {"ending": ".mkv", "batch": 2, "style": camfuse.VideoStyle(size=64)}
    stream = torch.cuda.Stream() if side_stream else torch.cuda.default_stream()
    with torch.cuda.stream(stream):
        results = list(camfuse.animate_images(model, tmp_path / "photographs", tmp_path, **options))
    assert [one.path.name for one in results] == [f"{i}.mkv" for i in range(5)]
    for one in results:
        again = camfuse.render_video(
            one.stack.cpu().shown(),
            tmp_path / f"photographs/{one.path.stem}.png",
            tmp_path / "again.mkv",
            style=camfuse.VideoStyle(size=64),
        )
        difference = np.abs(_decoded(one.path).astype(int) - _decoded(again.path).astype(int))
        assert difference.max() <= 1


def test_the_command_takes_a_device(tmp_path: Path, cat, capsys) -> None:
    camfuse.read_image(cat).save(tmp_path / "cat.png")
    model = ["--model", "torchvision:resnet18", "--weights", "random", "--device", "cuda"]
    out = ["--out", str(tmp_path / "cat.mp4"), "--size", "64"]
    assert main(["animate", str(tmp_path / "cat.png"), *model, *out]) == 0
    assert (tmp_path / "cat.mp4").stat().st_size
    assert main(["layers", *model]) == 0
    assert main(["info"]) == 0
    assert "kernels built" in " ".join(capsys.readouterr().out.split())
