"""Networks for sequences and volumes: maps of one and three dimensions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import camfuse
from camfuse import ops
from camfuse.capture import capture
from camfuse.captured import Captured
from camfuse.finish import finished_map
from camfuse.reference import layer_cam as reference_layer_cam
from oracle import autograd_pairs, relative_error


def network(rank: int) -> nn.Module:
    torch.manual_seed(rank)
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1]
    pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[rank - 1]
    squeeze = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[rank - 1]
    return (
        nn.Sequential(
            conv(2, 6, 3, padding=1),
            norm(6),
            nn.ReLU(inplace=True),
            pool(2),
            conv(6, 8, 3, padding=1),
            nn.GELU(),
            squeeze(1),
            nn.Flatten(),
            nn.Linear(8, 4),
        )
        .double()
        .eval()
    )


SIZES = {1: (24,), 3: (4, 6, 8)}
RULES = tuple(rule for rule in ops.MAGNITUDE_OF if rule != "weighted")


def image(rank: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 2, *SIZES[rank], generator=generator).double()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("rank", [1, 3])
def test_maps_have_the_grid_of_the_layer_and_agree_with_autograd(rank: int, batch: int) -> None:
    model, x = network(rank), image(rank, batch)
    expected = autograd_pairs(model, x)
    methods = [one for one in camfuse.METHODS if one in RULES]
    for _ in range(2):
        stack = camfuse.layer_cams(model, x, method=methods)
        half = tuple(n // 2 for n in SIZES[rank])
        assert [layer.size for layer in stack.layers] == [SIZES[rank]] * 3 + [half] * 3
        assert stack.input_size == SIZES[rank]
        for layer in stack.layers:
            A, G = (one.flatten(2)[:, :, None] for one in expected[layer.name])
            maps, _ = reference_layer_cam(A, G, methods)
            got = stack.maps(layer.name)[:, 0]
            assert layer.shape == (A.shape[1], *layer.size)
            assert got.shape == (len(methods), batch, *layer.size)
            assert relative_error(got.flatten(2), maps.flatten(2)) <= 1e-9, layer.name


def test_reasons_speak_of_all_dimensions() -> None:
    stack = camfuse.layer_cams(network(3), image(3))
    reasons = {one.name: one.reason for one in stack.skipped}
    assert reasons == {
        "6": "no spatial extent (1 x 1 x 1): shown by name",
        "7": "no spatial extent",
        "8": "no spatial extent",
    }
    assert camfuse.layer_cams(network(3), image(3), layers="6").layers[0].shape == (8, 1, 1, 1)


@pytest.mark.parametrize(("rank", "mode"), [(1, "linear"), (3, "trilinear")])
def test_displayed_maps_are_interpolated_in_all_dimensions(rank: int, mode: str) -> None:
    stack = camfuse.layer_cams(network(rank), image(rank), method="layercam")
    raw = stack["4"].clamp(min=0)
    high, low = raw.flatten(1).amax(1), raw.flatten(1).amin(1)
    sides = (-1, *[1] * rank)
    scaled = (raw - low.view(sides)) / (high - low).view(sides)
    expected = F.interpolate(scaled[:, None], SIZES[rank], mode=mode)[:, 0]
    got = stack.normalized("4", size=SIZES[rank])
    assert got.shape == (1, 1, 2, *SIZES[rank])
    torch.testing.assert_close(got[0, 0], expected)
    assert stack.normalized("4", "global").shape == (1, 1, 2, *stack.layers[3].size)
    with pytest.raises(ValueError, match=rf"size: expected {rank} numbers.*got \(5, 5\)"):
        stack.normalized("4", size=(5, 5))


@pytest.mark.parametrize("rank", [1, 3])
def test_one_layer_is_finished_as_it_is_displayed(rank: int) -> None:
    model, x = network(rank), image(rank)
    found: list[Tensor] = []

    def visit(layer: Captured, target: int, A: Tensor, G: Tensor) -> None:
        found.append(finished_map(A, G, "layercam", layer.shape[1:], SIZES[rank]))

    capture(model, x, visit, layers="4")
    stack = camfuse.layer_cams(model, x, layers="4", method="layercam")
    torch.testing.assert_close(found[0], stack.normalized("4", size=SIZES[rank])[0, 0])


def test_a_constant_map_is_finished_as_zero() -> None:
    A = G = torch.ones(2, 3, 1, 5)
    assert finished_map(A, G, "gradcam", (5,), (9,)).tolist() == [[0.0] * 9] * 2


@pytest.mark.parametrize("rank", [1, 3])
def test_files_keep_the_grids(rank: int, tmp_path: Path) -> None:
    stack = camfuse.layer_cams(network(rank).float(), image(rank).float())
    camfuse.save_stack(stack, tmp_path / "maps.safetensors")
    loaded = camfuse.load_stack(tmp_path / "maps.safetensors")
    assert loaded.layers == stack.layers
    assert loaded.input_size == stack.input_size
    assert torch.equal(loaded.flat, stack.flat)
    assert torch.equal(loaded["4"], stack["4"])
    assert torch.equal(loaded.select(layers=["4"], sample=1)["4"], stack["4"][1:])


@pytest.mark.parametrize("rank", [1, 3])
def test_pictures_of_them_are_refused_with_advice(rank: int, tmp_path: Path) -> None:
    stack = camfuse.layer_cams(network(rank), image(rank))
    photograph = Image.fromarray(np.zeros((16, 16, 3), np.uint8))
    missing = tmp_path / "missing.png"  # it is not even looked for
    out = tmp_path / "film.mp4"
    for attempt in (
        lambda: camfuse.render(stack, photograph),
        lambda: camfuse.render(stack, missing),
        lambda: camfuse.still(stack, missing, "4"),
        lambda: camfuse.sheet(stack, missing),
        lambda: camfuse.render_video(stack, missing, out),
    ):
        with pytest.raises(ValueError, match=r"stack: expected maps of rows and columns.*size="):
            attempt()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rank", [1, 3])
def test_layers_are_thinned_out_as_those_for_images_are(rank: int) -> None:
    stack = camfuse.layer_cams(network(rank), image(rank), layers=["leaf", "stage-ends"])
    assert stack.names == ("2", "5")
    assert len(camfuse.key_layers(stack, 1)) == 1


@pytest.mark.parametrize("name", ["r3d_18", "mc3_18"])
def test_networks_for_films(name: str) -> None:
    torch.manual_seed(0)
    model = getattr(torchvision.models.video, name)(weights=None, num_classes=5).eval()
    x = torch.randn(1, 3, 8, 32, 32)
    stack = camfuse.layer_cams(model, x, layers="conv")
    sizes = {layer.name: layer.size for layer in stack.layers}
    depth = (4, 2, 1) if name == "r3d_18" else (8, 8, 8)
    assert sizes["stem.0"] == (8, 16, 16)
    assert sizes["layer2.0.conv1.0"] == (depth[0], 8, 8)
    assert sizes["layer3.0.conv1.0"] == (depth[1], 4, 4)
    assert sizes["layer4.1.conv2.0"] == (depth[2], 2, 2)
    assert not stack.skipped


def test_windows_of_a_film_are_put_together_again() -> None:
    torch.manual_seed(0)
    model = torchvision.models.video.swin_transformer.SwinTransformer3d(
        [2, 4, 4], 12, [2, 2], [2, 3], window_size=[2, 4, 4], num_classes=5
    ).eval()
    x = torch.randn(2, 3, 8, 32, 48)
    stack = camfuse.layer_cams(model, x, layers="all")
    sizes = {layer.name: layer.size for layer in stack.layers}
    assert sizes["patch_embed.proj"] == (4, 8, 12)
    assert sizes["features.0.1.attn"] == (4, 8, 12)
    assert sizes["features.0.1.mlp.0"] == (4, 8, 12)
    assert sizes["features.2.1.norm1"] == (4, 4, 6)


class FramesFirst(nn.Module):
    """A film ``[B, T, C, H, W]`` whose frames go through a network for images one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.over_time = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        frames = self.norm(self.conv(x.flatten(0, 1))).relu().mean((2, 3))
        return self.over_time(frames.unflatten(0, x.shape[:2])).mean(1)


def test_frames_among_the_samples_become_a_volume() -> None:
    model, x = FramesFirst().double().eval(), torch.randn(2, 5, 3, 8, 12).double()
    stack = camfuse.layer_cams(model, x, method="hirescam")
    assert {layer.name: layer.shape for layer in stack.layers} == {
        "conv": (8, 5, 4, 6),
        "norm": (8, 5, 4, 6),
        "over_time": (4, 5, 1, 1),
    }
    assert stack.input_size == (5, 8, 12)
    A, G = autograd_pairs(model, x)["norm"]
    expected = (A * G).sum(1).unflatten(0, (2, 5))
    assert relative_error(stack["norm"], expected) <= 1e-12


def test_bf16_volumes_in_channels_last_agree() -> None:
    model, x = network(3).float(), image(3).float()
    expected = camfuse.layer_cams(model, x, layers="conv")
    last = camfuse.layer_cams(
        model.to(memory_format=torch.channels_last_3d),
        x.contiguous(memory_format=torch.channels_last_3d),
        layers="conv",
    )
    half = camfuse.layer_cams(model.bfloat16(), x.bfloat16(), layers="conv")
    for name in expected.names:
        assert relative_error(last[name], expected[name]) <= 1e-4
        assert relative_error(half[name], expected[name]) <= 0.1
