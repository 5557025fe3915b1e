"""Defaults of options from TOML files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from camfuse.cli import main

pytestmark = pytest.mark.usefixtures("folder")


def animate(capsys, *options: str) -> dict:
    assert main(["animate", "photo.png", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_camfuse_toml_gives_defaults_that_options_override(capsys):
    Path("camfuse.toml").write_text(
        'model = "own:make"\nsize = 64\nlayers = ["conv"]\n[animate]\nmethod = "layercam"\n'
    )
    report = animate(capsys)
    assert (report["model"], report["method"], report["frames"]) == ("own:make", "layercam", 2)
    assert animate(capsys, "--method", "hirescam", "--layers", "leaf")["method"] == "hirescam"


def test_a_table_for_the_command_comes_before_what_is_for_all(capsys):
    Path("camfuse.toml").write_text(
        'model = "own:make"\nsize = 64\ntarget = 0\n[animate]\ntarget = "dog"\n[sheet]\nsize = 32\n'
    )
    assert animate(capsys)["target"]["index"] == 1


def test_layers_are_an_option_or_the_table_of_the_command_of_this_name(capsys):
    Path("camfuse.toml").write_text('model = "own:make"\nsize = 64\nlayers = "conv"\n')
    assert main(["layers", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [layer["name"] for layer in report["layers"]] == ["0", "3"]
    Path("camfuse.toml").write_text(
        'model = "own:make"\nsize = 64\n[layers]\nlayers = "conv"\n[animate]\nlayers = "3"\n'
    )
    assert animate(capsys)["frames"] == 1
    assert main(["layers", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["layers"]) == 2


def test_pyproject_has_a_table_of_its_own_for_tools(capsys):
    Path("pyproject.toml").write_text(
        '[project]\nname = "x"\n[tool.camfuse]\nmodel = "own:make"\nsize = 64\n'
        "[tool.camfuse.animate]\nfps = 2.5\n"
    )
    assert animate(capsys)["model"] == "own:make"


def test_a_pyproject_of_others_says_nothing(capsys):
    Path("pyproject.toml").write_text('[project]\nname = "x"\n[tool.black]\nline-length = 100\n')
    assert animate(capsys, "--model", "own:make", "--size", "64")["frames"] == 5


def test_a_list_is_an_option_repeated(capsys):
    Path("camfuse.toml").write_text(
        'model = "own:make"\nsize = 64\nmethod = ["gradcam", "layercam"]\n'
    )
    columns = animate(capsys)["compared"]
    assert [one["method"] for one in columns] == ["gradcam", "layercam"]


def test_a_flag_is_true_or_false_and_can_be_taken_back(capsys):
    Path("camfuse.toml").write_text('model = "own:make"\nsize = 64\naug-smooth = true\n')
    assert animate(capsys)["aug_smooth"] is True
    assert animate(capsys, "--no-aug-smooth")["aug_smooth"] is False
    Path("camfuse.toml").write_text('model = "own:make"\nsize = 64\naug-smooth = false\n')
    assert animate(capsys)["aug_smooth"] is False
    assert animate(capsys, "--aug-smooth")["aug_smooth"] is True


def test_another_file_may_be_named(capsys):
    Path("camfuse.toml").write_text('model = "nobody:knows"\n')
    Path("mine.toml").write_text('model = "own:make"\nsize = 64\n')
    assert main(["--config", "mine.toml", "animate", "photo.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "own:make"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sise = 64", "camfuse.toml: no option or command is called 'sise'; close: size"),
        ("[animate]\nmethd = 1", "is called 'animate.methd'; close: animate.method"),
        ("[animat]\nsize = 1", "is called 'animat'; close: animate"),
        ("[sheet]\nfps = 1", "is called 'sheet.fps'"),
        ("size = [1, 2]", "size: expected a text or a number, got [1, 2]"),
        ("size = true", "size: expected a text or a number, got True"),
        ("debug = true", "debug: has no default; say --debug when calling a command"),
        ("[animate]\njson = true", "animate.json: has no default; say --json when calling"),
        ("sheet = 1", "camfuse.toml: sheet: expected a table, got 1"),
        ('aug-smooth = "yes"', "aug-smooth: expected true or false, got 'yes'"),
        ("aug-smooth = 1", "aug-smooth: expected true or false, got 1"),
        ("method = [true]", "method: expected a text or a number, got True"),
        ("size = {a = 1}", "size: expected a text or a number, got {'a': 1}"),
        ('size = "big"', "size"),
        ("size", "camfuse.toml: not a TOML file"),
        ("tool = 1", "tool.camfuse: expected a table, got 1"),
        ("[tool]\ncamfuse = 1", "tool.camfuse: expected a table, got 1"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(capsys, text, message):
    Path("camfuse.toml").write_text(text)
    assert main(["animate", "photo.png", "--model", "own:make"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_bytes_that_are_no_text_are_no_toml(capsys):
    Path("camfuse.toml").write_bytes(b"\xff\xfe\x00")
    assert main(["info"]) == 2
    assert "camfuse.toml: not a TOML file" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(capsys):
    assert main(["--config", "absent.toml", "info"]) == 2
    assert "--config: cannot read 'absent.toml'" in capsys.readouterr().err
