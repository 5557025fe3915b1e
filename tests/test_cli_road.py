"""``camfuse road`` and ``camfuse animate --road``: what they find, print, draw and refuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from camfuse import load_stack
from camfuse.cli import main

SHOWN = ["0", "1", "2", "3", "4"]
PAIR = ["--method", "gradcam", "--method", "layercam"]


def road(*options: str) -> int:
    return main(["road", "photo.png", "--model", "own:make", *options])


def animate(*options: str) -> int:
    return main(["animate", "photo.png", "--model", "own:make", "--size", "64", "--road", *options])


class TestRoad:
    def test_all_layers_are_ranked_beside_what_knows_nothing(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert road("--json", "--target", "dog", "--seeds", "2", *PAIR) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["seeds"] == [0, 1]
        assert [one["method"] for one in report["results"]] == ["gradcam", "layercam"]
        for one in report["results"]:
            assert one["target"] == {"index": 1, "name": "dog"}
            scores = {layer["name"]: layer["score"] for layer in one["layers"]}
            assert list(scores) == SHOWN
            assert one["maximum"] == scores[one["best_layer"]] == max(scores.values())
            assert set(one["baselines"]) == {"random", "sobel"}

    def test_people_see_the_best_first_and_whether_it_means_something(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert road("--seeds", "1", "--top", "2") == 0
        said = capsys.readouterr().out
        assert "and 3 more: --all lists them" in said
        assert "best layer" in said or "no layer beats maps that know nothing" in said
        assert road("--seeds", "1", "--all") == 0
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        scores = [float(row[1]) for row in rows if len(row) == 4 and row[0].isdecimal()]
        assert len(scores) == 5
        assert scores == sorted(scores, reverse=True)

    def test_the_plot_appears_whole_and_only_with_matplotlib(
        self,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        before = set(folder.iterdir())
        assert road("--seeds", "1", "--plot", "scores.png", *PAIR) == 0
        assert Image.open("scores.png").width > 500
        assert set(folder.iterdir()) - before <= {folder / "scores.png", folder / "__pycache__"}
        capsys.readouterr()
        assert road("--plot", "scores.txt") == 2
        assert "--plot must end in .png, .svg or .pdf" in capsys.readouterr().err
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        assert road("--plot", "other.png") == 1
        assert "pip install 'camfuse[metrics]'" in capsys.readouterr().err
        assert not Path("other.png").exists()

    def test_bad_input_is_named(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for options, message in (
            (["--percentages", "20,x"], "--percentages: expected numbers such as 20,40"),
            (["--percentages", "0"], "--percentages: expected more than 0 and less than 100"),
            (["--seeds", "0"], "--seeds"),
        ):
            assert road(*options) == 2
            assert message in capsys.readouterr().err


class TestAnimate:
    def test_scores_are_the_curve_the_report_and_part_of_the_saved_maps(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert animate("--json", "--save-maps", "maps.safetensors", *PAIR) == 0
        report = json.loads(capsys.readouterr().out)
        assert [one["method"] for one in report["ybroad"]["results"]] == ["gradcam", "layercam"]
        saved = load_stack("maps.safetensors").series["ybroad"]
        assert saved.shape[1:] == (2, 1, 1)
        assert report["seconds"]["road"] > 0
        assert main(["render", "maps.safetensors", "photo.png", "--curve", "ybroad"]) == 0

    def test_key_frames_hold_the_best_layer(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert animate("--json", "--keyframes", "1") == 0
        report = json.loads(capsys.readouterr().out)
        best = report["ybroad"]["results"][0]["best_layer"]
        assert [layer["name"] for layer in report["layers"]] == [best]

    def test_each_of_several_photographs_has_scores_of_its_own(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Image.open("photo.png").rotate(180).save("turned.png")
        arguments = ["--model", "own:make", "--size", "64", "--road"]
        assert main(["animate", "photo.png", "turned.png", *arguments, "--json"]) == 0
        several = json.loads(capsys.readouterr().out)["videos"]
        assert animate("--json", "--out", "alone.mp4") == 0
        alone = json.loads(capsys.readouterr().out)["ybroad"]["results"][0]["layers"]
        first, second = (one["ybroad"]["results"][0]["layers"] for one in several)
        for ours, own in zip(first, alone, strict=True):
            assert ours["score"] == pytest.approx(own["score"], abs=1e-4)  # ties, rounded
        assert [one["score"] for one in first] != [one["score"] for one in second]

    def test_people_are_told_the_best_layer(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert animate() == 0
        said = capsys.readouterr().out
        assert "over the edges of the image" in said
