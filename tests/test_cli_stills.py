"""``camfuse sheet`` and ``camfuse still`` on the command line."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camfuse import load_stack
from camfuse.cli import main

SHOWN = ["0", "1", "2", "3", "4"]
SHEET = ["sheet", "photo.png", "--model", "own:make"]
STILL = ["still", "photo.png", "--model", "own:make", "--layer"]
TWO_CALLS = """
import torch
from torch import nn

class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.relu = nn.ReLU()
    def forward(self, x):
        return self.relu(self.second(self.relu(self.first(x)))).mean((2, 3))

def make():
    torch.manual_seed(0)
    return Twice().eval()
"""


def animated(*options: str) -> None:
    """Prints the report of a video of the same model and saves its maps in x.safetensors."""
    command = ["animate", "photo.png", "--model", "own:make", "--size", "64", *options]
    assert main([*command, "--save-maps", "x.safetensors", "--json"]) == 0


def test_a_sheet_is_a_png_or_an_svg(folder, capsys):
    assert main([*SHEET, "--size", "48", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [layer["name"] for layer in report["layers"]] == SHOWN
    assert report["path"] == "photo-sheet.png"
    with Image.open("photo-sheet.png") as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
    assert main([*SHEET, "--out", "x.svg", "--keyframes", "2"]) == 0
    assert Path("x.svg").read_text().count("<image") == 3


def test_a_still_is_a_picture_or_the_raw_map(folder):
    assert main([*STILL, "3"]) == 0
    with Image.open("photo-3.png") as picture:
        assert picture.size == (60, 40)
    assert main([*STILL, "3", "--out", "x.npy", "--method", "layercam"]) == 0
    animated("--method", "layercam")
    raw = np.load("x.npy")
    assert raw.dtype == np.float32
    assert np.array_equal(raw, load_stack("x.safetensors")["3"][0].numpy())


def test_a_still_and_a_sheet_can_be_smoothed(folder, capsys):
    animated("--aug-smooth")
    assert main([*STILL, "3", "--out", "x.npy", "--aug-smooth"]) == 0
    assert np.array_equal(np.load("x.npy"), load_stack("x.safetensors")["3"][0].numpy())
    capsys.readouterr()
    for command in (SHEET, [*STILL, "3"]):
        assert main([*command, "--aug-smooth", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["aug_smooth"], report["eigen_smooth"]) == (True, False)


def test_the_global_range_of_a_still_is_that_of_all_layers(folder):
    for layer in SHOWN:
        for way in ("layer", "global"):
            assert main([*STILL, layer, "--normalize", way, "--out", f"{way}{layer}.png"]) == 0
    same = [
        Path(f"layer{layer}.png").read_bytes() == Path(f"global{layer}.png").read_bytes()
        for layer in SHOWN
    ]
    assert 1 <= same.count(True) < len(SHOWN), "only the highest map fills the global range"


def test_a_still_shows_each_call_of_a_module(folder):
    (folder / "own.py").write_text(TWO_CALLS)
    animated()
    for layer in ("relu", "relu#2"):
        assert main([*STILL, layer, "--out", f"{layer}.npy"]) == 0
        assert np.array_equal(
            np.load(f"{layer}.npy"), load_stack("x.safetensors")[layer][0].numpy()
        )
    assert not np.array_equal(np.load("relu.npy").shape, np.load("relu#2.npy").shape)
    assert main([*STILL, "relu#2", "--normalize", "global"]) == 0
    assert Path("photo-relu#2.png").exists()


def test_a_call_that_never_was_is_one_line(folder, capsys):
    assert main([*STILL, "3#2"]) == 2
    assert "--layer: 3#2: no such layer" in capsys.readouterr().err


def test_a_still_of_a_tiny_photograph_has_the_smallest_size(folder):
    Image.new("RGB", (12, 8), "red").save("photo.png")
    assert main([*STILL, "3"]) == 0
    with Image.open("photo-3.png") as picture:
        assert picture.size == (16, 10)


@pytest.mark.parametrize("command", [SHEET, [*STILL, "3"]])
def test_the_report_tells_what_that_of_a_video_tells(folder, capsys, command):
    animated("--target", "dog")
    video = json.loads(capsys.readouterr().out)
    assert main([*command, "--target", "dog", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["version"] == version("camfuse")
    assert report["bytes_written"] == Path(report["path"]).stat().st_size
    for key in ("version", "model", "weights", "method", "target", "warnings", "preprocessing"):
        assert report[key] == video[key]
    assert report["target"]["name"] == "dog"
    if command == SHEET:
        assert report["skipped"] == video["skipped"] != []
        assert report["layers"] == video["layers"]
    else:
        assert report["layers"] == [one for one in video["layers"] if one["name"] == "3"]
        assert report["skipped"] == []


def test_people_are_told_what_is_shown(folder, capsys):
    assert main([*STILL, "3", "--target", "dog"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("photo-3.png: 3, ")
    assert second.startswith("own:make · gradcam · dog ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("sheet photo.png --out x.jpg", "out must end in .png or .svg"),
        ("sheet photo.png --out photo.png", "out: expected another file than the photograph"),
        ("sheet photo.png --columns 0", "columns: expected at least 1"),
        ("sheet photo.png --colormap nope", "colormap: expected one of turbo"),
        ("sheet photo.png --size 3", "size: expected 16 to 8192, got 3"),
        ("sheet photo.png --keyframes 0", "keyframes: expected at least 1, got 0"),
        ("sheet photo.png --normalize both", "normalize: expected 'layer' or 'global', got 'both'"),
        ("sheet photo.png --eigen-smooth --method eigencam", "--eigen-smooth: the map of eigencam"),
        ("still photo.png --layer 0 --batch-size 0", "--batch-size: expected at least 1, got 0"),
        ("still photo.png --layer 0 --out x.gif", "must end in .png or .npy"),
        ("still photo.png --layer 0 --out ./photo.png", "out: expected another file than the phot"),
        ("still photo.png --layer 0 --out link.png", "got 'link.png'"),
        ("still photo.png --layer 0 --normalize source", "normalize: expected 'layer' or 'global'"),
        ("still photo.png --layer 0 --colormap nope", "colormap: expected one of turbo"),
        ("still photo.png --layer 0 --size 3", "size: expected 16 to 8192, got 3"),
        ("still photo.png --layer 0 --out x.npy --size 64", "--size: expected with a picture only"),
        ("still photo.png --layer 0 --out x.npy --colormap jet", "--colormap: expected with a pic"),
        ("still photo.png --layer 0 --out x.npy --normalize layer", "--normalize: expected with a"),
        *(
            (f"still photo.png --layer {layer}", f"expected the name of one layer, got '{layer}'")
            for layer in (
                "conv", "leaf", "all", "conv#2", "c*", "[0]", "stage-ends", "every:2", "type:X"
            )
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_loads_no_model(folder, capsys, options, message):
    os.link("photo.png", "link.png")
    before = sorted(folder.iterdir())
    assert main([*options.split(), "--model", "own:make"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1, "the model talks when it is made"
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("layer", "message"),
    [("absent", "no layer of the model matches"), ("7", "no spatial extent")],
)
def test_a_layer_that_cannot_be_shown_is_one_line_and_makes_nothing(folder, capsys, layer, message):
    assert main([*STILL, layer]) == 2
    said = capsys.readouterr().err.removeprefix("a model that talks\n")
    assert message in said
    assert said.count("\n") == 1
    assert not Path(f"photo-{layer}.png").exists()


def test_a_raw_map_is_the_same_whatever_a_file_says_of_pictures(folder, capsys):
    assert main([*STILL, "3", "--out", "x.npy"]) == 0
    Path("camfuse.toml").write_text('colormap = "jet"\nnormalize = "global"\nsize = 64\n')
    assert main([*STILL, "3", "--out", "y.npy", "--json"]) == 0
    assert Path("x.npy").read_bytes() == Path("y.npy").read_bytes()
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["skipped"] == [], "no other layer was asked for"


@pytest.mark.parametrize("name", ["sheet.png", "sheet.svg", "still.png", "still.npy"])
def test_a_full_disk_is_one_line_and_leaves_no_file(folder, capsys, disk, name):
    full = disk(4096)
    (full / "filler").write_bytes(bytes(4096))
    command = SHEET if name.startswith("sheet") else [*STILL, "3"]
    assert main([*command, "--out", f"{full}/{name}"]) == 1
    said = capsys.readouterr().err.removeprefix("a model that talks\n")
    assert said.startswith("camfuse: error: ")
    assert said.count("\n") == 1
    assert [path.name for path in full.iterdir()] == ["filler"]
