"""CamStack: selection, normalisation, ranges, files."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import camfuse
from oracle import relative_error
from small_models import Residual, SkipOverIdentity

METHODS = ("gradcam", "layercam", "randomcam")


@pytest.fixture
def stack() -> camfuse.CamStack:
    torch.manual_seed(0)
    model, x = Residual().eval(), torch.randn(3, 3, 9, 14)
    return camfuse.layer_cams(model, x, method=METHODS, target=camfuse.Each([None, 2]))


def test_axes_and_views(stack: camfuse.CamStack) -> None:
    assert stack.axes == (3, 2, 3)
    assert stack.names == ("stem", "norm", "relu", "conv", "relu#2")
    assert stack.maps("conv").shape == (3, 2, 3, 9, 14)
    assert stack.maps("conv").data_ptr() == stack.maps(3).data_ptr()
    h, w = stack.layers[3].size
    start = stack.offset(3, method=1, target=1, sample=2)
    assert torch.equal(stack.flat[start : start + h * w].view(h, w), stack.maps(3)[1, 1, 2])


def test_ranges_are_those_of_the_signed_maps(stack: camfuse.CamStack) -> None:
    for i in range(len(stack)):
        maps = stack.maps(i).flatten(3)
        assert torch.equal(stack.ranges[i, ..., 0], maps.amin(-1))
        assert torch.equal(stack.ranges[i, ..., 1], maps.amax(-1))
    everything = torch.stack([stack.maps(i) for i in range(len(stack))]).transpose(0, 3).flatten(3)
    assert torch.equal(stack.global_ranges[..., 0], stack.ranges[..., 0].amin(0))
    assert stack.global_ranges[..., 1].max() == everything.max()


def test_an_item_needs_one_method_and_one_target(stack: camfuse.CamStack) -> None:
    with pytest.raises(ValueError, match=r"3 methods and 2 targets: .*select\(method=, target=\)"):
        stack["conv"]
    chosen = stack.select(method="layercam", target=1)
    assert torch.equal(chosen["conv"], stack.maps("conv")[1, 1])
    with pytest.raises(KeyError, match="classifier: no spatial extent"):
        chosen["classifier"]
    with pytest.raises(KeyError, match="nothing: no such layer"):
        chosen["nothing"]


def test_selection_keeps_the_global_range(stack: camfuse.CamStack) -> None:
    chosen = stack.select(layers=["conv", "stem"], method="gradcam", target=0, sample=2)
    assert chosen.names == ("conv", "stem")
    assert chosen.axes == (1, 1, 1)
    assert torch.equal(chosen["stem"], stack.maps("stem")[0, 0, 2:])
    assert torch.equal(chosen.global_ranges, stack.global_ranges[:1, :1, 2:])
    assert torch.equal(chosen.ranges, stack.ranges[[3, 0], :1, :1, 2:])
    assert torch.equal(chosen.targets, stack.targets[:1, 2:])
    with pytest.raises(ValueError, match="method: expected one of gradcam, layercam, randomcam"):
        stack.select(method="cam")
    with pytest.raises(ValueError, match=r"target: expected 0\.\.1, got 2"):
        stack.select(target=2)
    with pytest.raises(ValueError, match=r"sample: expected 0\.\.2, got -1"):
        stack.select(sample=-1)
    with pytest.raises(TypeError, match="layers: expected a sequence of names, got 'conv'"):
        stack.select(layers="conv")


def test_layers_that_share_their_maps_keep_sharing_them(stack: camfuse.CamStack) -> None:
    chosen = stack.select(layers=["conv", "stem", "conv", "conv"], sample=1)
    assert chosen.offsets[0] == chosen.offsets[2] == chosen.offsets[3] != chosen.offsets[1]
    assert chosen.flat.numel() == 2 * chosen.maps(0).numel()
    for i, name in enumerate(chosen.names):
        assert torch.equal(chosen.maps(i), stack.maps(name)[:, :, 1:2])


def test_names_of_targets_are_chosen_and_kept_with_them(
    stack: camfuse.CamStack, tmp_path: Path
) -> None:
    assert stack.target_name(1, 2) is None
    named = dataclasses.replace(stack, target_names=(("a", "b", "c"), ("d", "", "f")))
    assert named.target_name(1, 2) == "f"
    assert named.target_name(1, 1) is None
    assert named.select(target=1).target_names == (("d", "", "f"),)
    assert named.select(sample=2).target_names == (("c",), ("f",))
    camfuse.save_stack(named, tmp_path / "x.safetensors")
    assert camfuse.load_stack(tmp_path / "x.safetensors").target_names == named.target_names


@pytest.mark.parametrize("mode", ["layer", "global"])
@pytest.mark.parametrize("relu", [True, False])
def test_normalisation_by_hand(stack: camfuse.CamStack, mode: str, relu: bool) -> None:
    got = stack.normalized("conv", mode, relu=relu, size=(20, 30))
    pools = [stack.maps(i).flatten(3) for i in range(len(stack))]
    pool = torch.cat(pools, -1) if mode == "global" else pools[3]
    maps = stack.maps("conv")
    if relu:
        pool, maps = pool.relu(), maps.relu()
    low, high = pool.amin(-1)[..., None, None], pool.amax(-1)[..., None, None]
    expected = F.interpolate(((maps - low) / (high - low)).flatten(0, 1), (20, 30), mode="bilinear")
    torch.testing.assert_close(got, expected.view_as(got))
    assert got.min() >= 0
    assert got.max() <= 1


def test_constant_maps_become_zero() -> None:
    torch.manual_seed(0)
    model = Residual().eval()
    model.conv.weight.data.zero_()
    model.conv.bias.data.fill_(1)
    stack = camfuse.layer_cams(model, torch.randn(1, 3, 6, 6), layers="conv")
    assert torch.equal(stack.normalized("conv", "layer"), torch.zeros(1, 1, 1, 6, 6))


def test_files_hold_everything(stack: camfuse.CamStack, tmp_path: Path) -> None:
    stack = camfuse.CamStack(**{**vars(stack), "series": {"ybroad": stack.ranges[..., 0]}})
    path = camfuse.save_stack(stack, tmp_path / "maps.safetensors")
    assert list(tmp_path.iterdir()) == [path]
    loaded = camfuse.load_stack(path)
    for name, value in vars(stack).items():
        other = getattr(loaded, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other), name
        elif name == "series":
            assert torch.equal(value["ybroad"], other["ybroad"])
        else:
            assert value == other, name


def test_aliases_share_their_maps_in_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = SkipOverIdentity().eval(), torch.randn(1, 3, 6, 6)
    stack = camfuse.layer_cams(model, x, layers="all")
    loaded = camfuse.load_stack(camfuse.save_stack(stack, tmp_path / "maps.safetensors"))
    assert loaded.offsets == stack.offsets
    assert loaded.offsets[0] == loaded.offsets[1]
    assert torch.equal(loaded["through"], stack["first"])
    assert loaded.layers[1].alias_of == "first"


def test_an_existing_file_survives_a_failed_save(
    stack: camfuse.CamStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "maps.safetensors"
    path.write_text("precious")

    def full(*args: object) -> None:
        Path(args[1]).write_text("half")
        raise OSError("no space left on device")

    monkeypatch.setattr("camfuse.storage.save_file", full)
    with pytest.raises(OSError, match="no space left"):
        camfuse.save_stack(stack, path)
    assert [one.name for one in tmp_path.iterdir()] == ["maps.safetensors"]
    assert path.read_text() == "precious"


def rewritten(path: Path, change: object) -> Path:
    """The file with its camfuse header passed through `change`."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    outer = json.loads(data[8 : 8 + length])
    inner = json.loads(outer["__metadata__"]["camfuse"])
    change(inner)
    outer["__metadata__"]["camfuse"] = json.dumps(inner)
    header = json.dumps(outer).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(format=2), "format 2 is not known"),
        (lambda h: h.pop("methods"), "methods is missing"),
        (lambda h: h["layers"][0].update(offset=10**15), "reaches beyond the maps"),
        (lambda h: h["layers"][0].update(offset=-1), "expected a count of at least 0, got -1"),
        (lambda h: h["layers"][0].update(shape=[4, 10**9, 10**9]), "reaches beyond the maps"),
        (lambda h: h["layers"].pop(), r"ranges: expected .*\(4, 3, 2, 3, 2\), got"),
        (lambda h: h.update(model=7), "expected text .*, got 7"),
        (lambda h: h.update(layers=None), "not a sound CamStack file"),
    ],
)
def test_unsound_files_are_refused(
    stack: camfuse.CamStack, tmp_path: Path, change: object, message: str
) -> None:
    path = rewritten(camfuse.save_stack(stack, tmp_path / "maps.safetensors"), change)
    with pytest.raises(ValueError, match=message):
        camfuse.load_stack(path)


def test_other_files_are_refused(stack: camfuse.CamStack, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        camfuse.load_stack(tmp_path / "missing")
    path = camfuse.save_stack(stack, tmp_path / "maps.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="not a sound CamStack file"):
        camfuse.load_stack(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="not a sound CamStack file"):
        camfuse.load_stack(path)


def test_f64_models_have_f64_maps() -> None:
    torch.manual_seed(0)
    model, x = Residual().double().eval(), torch.randn(1, 3, 6, 6, dtype=torch.float64)
    stack = camfuse.layer_cams(model, x)
    single = camfuse.layer_cams(model.float(), x.float())
    assert (stack.flat.dtype, single.flat.dtype) == (torch.float64, torch.float32)
    for name in stack.names:
        assert relative_error(single[name], stack[name]) < 1e-4


def test_a_full_disk_is_an_error_that_leaves_no_file(stack: camfuse.CamStack, disk) -> None:
    folder = disk(16384)
    assert stack.flat.nbytes > 16384
    with pytest.raises(OSError, match=r"x\.safetensors: cannot be written"):
        camfuse.save_stack(stack, folder / "x.safetensors")
    assert list(folder.iterdir()) == []
