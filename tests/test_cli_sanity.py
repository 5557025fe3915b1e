"""``camfuse sanity`` on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from camfuse.cli import main

SANITY = ["sanity", "photo.png", "--model", "own:make"]


def test_it_says_in_a_table_and_a_sentence_what_stays(folder, capsys):
    assert main([*SANITY, "--stages", "2"]) == 0
    said = capsys.readouterr().out
    assert "maps once all is random, cascading" in said
    assert "gradcam: of 5 layers, " in said
    assert "Likeness with a random model" in said


def test_its_json_holds_every_stage_and_a_verdict_for_each_map(folder, capsys):
    options = ["--method", "gradcam", "--method", "eigencam", "--mode", "independent"]
    assert main([*SANITY, *options, "--target", "dog", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["stages"] == [["7"], ["3"], ["0"]]
    assert report["targets"] == [[1]]
    assert report["mode"] == "independent"
    assert len(report["verdicts"]) == 2 * 5
    assert len(report["similarities"]["spearman"]["similarity"]) == 3


def test_negative_evidence_is_compared_on_request(folder, capsys):
    found = []
    for options in ([], ["--signed"]):
        assert main([*SANITY, "--stages", "1", "--json", *options]) == 0
        found.append(json.loads(capsys.readouterr().out))
    cut, signed = (one["similarities"]["spearman"]["final"] for one in found)
    assert cut != signed
    assert not any(None in row for row in signed)


def test_the_plot_takes_its_place_when_it_is_whole(folder, capsys):
    pytest.importorskip("matplotlib")
    assert main([*SANITY, "--stages", "1", "--plot", "x.png", "--layers", "0,3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plot"] == "x.png"
    with Image.open("x.png") as picture:
        assert picture.format == "PNG"
    assert not list(Path().glob(".*.tmp"))


def test_without_matplotlib_it_says_what_to_install_before_any_work(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main([*SANITY[:-1], "nothing:here", "--plot", "x.png"]) == 1
    assert "a plot needs matplotlib" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mode", "both"], "--mode: expected 'cascading' or 'independent', got 'both'"),
        (["--stages", "0"], "--stages: expected at least 1, got 0"),
        (["--plot", "x.gif"], "--plot"),
        (["--plot", "photo.png"], "--plot: expected another file than the photograph"),
        (["--method", "nothing"], "--method"),
    ],
)
def test_what_cannot_be_is_refused(folder, capsys, options, message):
    assert main([*SANITY, *options]) == 2
    assert message in capsys.readouterr().err
