"""Benchmarks run, say what they found in one line, and the pages show what they say."""

from __future__ import annotations

import ast
import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks import camanim, growth, sides, table
from benchmarks.catalogue import FOLDER, NAMES, summary
from benchmarks.harness import Claim, Pair, alternate
from benchmarks.result import result_of, write_json
from torch import nn

import camfuse
from small_models import Residual

ROOT = Path(__file__).parents[1]


def runner(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_every_module_that_runs_is_listed_with_a_line_of_its_own():
    modules = {path.stem: ast.parse(path.read_text("utf-8")) for path in FOLDER.glob("*.py")}
    running = {
        name
        for name, tree in modules.items()
        if any(isinstance(one, ast.FunctionDef) and one.name == "run" for one in tree.body)
    }
    assert running == set(NAMES)
    listed = dict(line.split(maxsplit=1) for line in runner().splitlines())
    assert listed == {name: summary(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_module_can_be_imported_and_says_what_it_is_about(name):
    module = importlib.import_module(f"benchmarks.{name}")
    assert callable(module.run)
    assert (module.__doc__ or "").startswith(summary(name))
    assert summary(name).endswith(".")


def test_the_runner_ends_with_one_json_object_and_writes_the_same(tmp_path):
    file = tmp_path / "found.json"
    printed = runner("render_frames", "--quick", "--threads", "1", "--json", str(file))
    result = json.loads(printed.splitlines()[-1])
    assert json.loads(file.read_text()) == result
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
    assert set(result) == {"name", "ratio", "goal", "holds", "detail"}
    assert result["name"] == "render_frames"
    assert result["detail"]["threads"] == 1
    assert result["detail"]["quick"]
    assert result["detail"]["claims"]


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(subprocess.CalledProcessError) as failed:
        runner("speed")
    assert failed.value.returncode == 2
    assert "'speed'" in failed.value.stderr


def test_the_claim_farthest_from_its_goal_stands_at_the_top():
    claims = [
        Claim("faster", "one", 3.0, ">= 2"),
        Claim("faster", "two", 1.0, ">= 2"),
        Claim("longer", "one", 1.4, "<= 1.3"),
        Claim("beside", "one", 99.0, None),
    ]
    assert [claim.holds for claim in claims] == [True, False, False, True]
    result = result_of("some", claims, quick=False)
    assert (result["ratio"], result["goal"], result["holds"]) == (1.0, ">= 2", False)


def test_a_ratio_is_the_median_of_the_rounds_own():
    pair = Pair.of([1.0, 10.0, 2.0], [3.0, 20.0, 2.0])
    assert (pair.ours, pair.theirs, pair.ratio) == (2.0, 3.0, 2.0)
    assert (pair.low, pair.high) == (1.5, 2.5)
    assert pair.inverse == Pair(3.0, 2.0, 0.5, 0.4, 1 / 1.5)


def test_works_run_in_turn_and_none_always_first():
    calls: list[str] = []
    alternate([lambda: calls.append("a"), lambda: calls.append("b")], quick=True, seconds=0)
    warm_up, rounds = calls[:2], calls[2:]
    assert warm_up == ["a", "b"]
    assert rounds == ["a", "b", "b", "a", "a", "b"]
    calls.clear()
    alternate([lambda: calls.append("a")], quick=False, seconds=0)
    assert len(calls) - 1 >= 7


HOLDER = """
def prepare(mebibytes):
    loaded = bytearray(2**25)
    kept = []
    def work():
        if not kept:
            kept.append(bytearray(b"1") * 2**25)
        return len(loaded), bytearray(b"1") * (mebibytes * 2**20)
    return work
"""


def test_extra_memory_is_what_the_second_call_needs_beyond_what_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "holder.py").write_text(HOLDER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    extra = sides.extra_memory("holder:prepare", 64)
    assert extra.second / 2**20 == pytest.approx(64 + 32, abs=4)


def test_a_failing_side_says_why():
    with pytest.raises(RuntimeError, match="no_such_module"):
        sides.extra_memory("no_such_module:prepare")


def test_the_procedure_that_animations_are_held_against_makes_our_maps():
    model = Residual().eval()
    x = torch.randn(1, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    names = [name for name, _ in model.named_modules() if name]
    maps = camanim.layer_maps(model.requires_grad_(True), x, names)
    stack = camfuse.layer_cams(model, x, layers="all")
    camanim.check_maps(maps, stack)
    with pytest.raises(AssertionError):
        camanim.check_maps({name: map_ + 1 for name, map_ in maps.items()}, stack)


def test_the_procedure_writes_two_sets_of_figures_and_their_videos(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    photograph = torch.zeros(16, 16, 3, dtype=torch.uint8).numpy()
    x = torch.randn(1, 3, 16, 16)
    made = camanim.animate(model, x, photograph, tmp_path, only=["0", "2"])
    assert list(made.maps) == ["0"]  # what is flat raises, and is left out
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert files == {"global.mp4", "global/000000.png", "layer.mp4", "layer/000000.png"}
    assert made.bytes_written == sum((tmp_path / file).stat().st_size for file in files)


def test_an_exponent_is_the_slope_between_logarithms():
    x = [1, 2, 4, 8, 16]
    exponent, error = growth.fitted_exponent(x, [3 * one**1.5 for one in x])
    assert exponent == pytest.approx(1.5)
    assert error == pytest.approx(0, abs=1e-9)
    bent = [1.0, 2.0, 4.0, 8.0, 64.0]
    assert growth.local_exponent(x, bent) == pytest.approx(3)
    assert growth.fitted_exponent(x, bent)[1] > 0.1


@pytest.fixture
def results(tmp_path):
    """Results of two benchmarks, one of which was only tried."""
    claims = [
        Claim("maps / floor", "big net", 1.04321, "<= 1.05", {"ours_ms": 1.0}),
        Claim("maps / floor", "small net", 1.2, "<= 1.05"),
        Claim("maps / passes", "big net", 123.4, None),
    ]
    write_json(tmp_path / "all_layers.json", result_of("all_layers", claims, quick=False))
    write_json(tmp_path / "impute.json", result_of("impute", claims, quick=True))
    return table.load(tmp_path)


def test_the_overview_has_a_row_for_each_claim_and_says_what_is_not_measured(results):
    lines = table.overview(results)
    command = "`python -m benchmarks all_layers`"
    span = "1.04 to 1.20, median 1.12, 2 cases"
    assert f"| maps / floor | {span} | <= 1.05 | **1 of 2** | {command} |" in lines
    assert f"| maps / passes | 123 (big net) |  |  | {command} |" in lines
    (row,) = (line for line in lines if "benchmarks impute`" in line)
    assert "| not measured |" in row
    assert lines[-1].startswith("Measured with ")


def test_a_page_gets_what_it_marks_and_nothing_else(results):
    page = "a\n<!-- measured all_layers -->\nold\n<!-- /measured -->\nb\n"
    filled = table.filled(page, results)
    lines = filled.splitlines()
    assert lines[:2] == ["a", "<!-- measured all_layers -->"]
    assert lines[-2:] == ["<!-- /measured -->", "b"]
    assert "| big net | 1.04 | 123 |" in lines
    assert "| small net | **1.20** |  |" in lines
    assert "old" not in lines
    assert table.filled(filled, results) == filled
    with pytest.raises(ValueError, match="speed"):
        table.filled(page.replace("all_layers", "speed"), results)


@pytest.mark.parametrize("page", table.PAGES, ids=lambda page: page.name)
def test_pages_show_the_results_that_are_there(page):
    text = page.read_text(encoding="utf-8")
    assert text == table.filled(text, table.load(table.RESULTS)), "run python -m benchmarks.table"


def test_every_benchmark_has_its_section():
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"<!-- measured {name} -->" in text


def test_numbers_have_three_digits():
    assert [table._number(one) for one in (0.9876, 12.345, 148.6, 8700.0, math.pi)] == [
        "0.988",
        "12.3",
        "149",
        "8700",
        "3.14",
    ]
