"""Bad input and failures on the command line: one line, the right code, nothing left behind."""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image

import camfuse.cli
from camfuse.cli import main

OWN = """
import torch
from torch import nn
from camfuse.images import Preprocessing

class Base(nn.Module):
    preprocessing = Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3, "bilinear")

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Conv2d(4, 2, 1)

    def features(self, x):
        return self.head(self.conv(x)).mean((2, 3))

class Good(Base):
    def forward(self, x):
        return self.features(x)

class Dict(Base):
    def forward(self, x):
        return {"out": self.features(x), "aux": self.features(x)}

class Independent(Base):
    def forward(self, x):
        self.features(x)
        return x.mean((2, 3))

class NaN(Base):
    def forward(self, x):
        return (self.features(x) * 0).sqrt()

class Broken(Base):
    def forward(self, x):
        raise KeyError("a bug of the user's")

class Refusing(Base):
    def forward(self, x):
        raise ValueError("the user's code does not like it")

def refusing(): return Refusing().eval()
def good(): return Good().eval()
def training(): return Good()
def dictionary(): return Dict().eval()
def independent(): return Independent().eval()
def nan(): return NaN().eval()
def broken(): return Broken().eval()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.linear_gradient("L").resize((60, 40)).convert("RGB").save("photo.png")
    Path("notes.png").write_text("not a photograph")
    Path("huge.png").write_bytes(huge_png(60_000))
    Path("own.py").write_text(OWN)
    Path("photo.mp4").write_text("an earlier video")
    yield tmp_path
    sys.modules.pop("own", None)


def huge_png(side: int) -> bytes:
    """A few bytes that claim to be ``side`` x ``side`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(b"")),
            chunk(b"IEND", b""),
        ]
    )


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def script(path: Path, text: str) -> str:
    path.write_text("#!/bin/sh\n" + textwrap.dedent(text))
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("absent.png --model own:good", 2, "absent.png"),
        ("notes.png --model own:good", 2, "notes.png"),
        ("huge.png --model own:good", 2, "huge.png"),
        ("photo.png --model nothing", 2, "model: expected torchvision:NAME"),
        ("photo.png --model own:god", 2, "close: good"),
        ("photo.png --model torchvision:resnet05", 2, "close: resnet50"),
        ("photo.png --model own:good --weights absent.pth", 2, "'absent.pth' does not exist"),
        ("photo.png --model own:good --weights notes.png", 2, "cannot be read as a state dict"),
        ("photo.png --model own:good --layers cnv", 2, "close: conv"),
        ("photo.png --model own:good --layers ,", 2, "--layers: expected at least one"),
        ("photo.png --model own:good --method gradcan", 2, "did you mean 'gradcam'"),
        ("photo.png --model own:good --target 2", 2, "--target: expected a class in 0..1, got 2"),
        ("photo.png --model own:good --target -1", 2, "got -1"),
        ("photo.png --model own:good --target=", 2, "--target: expected the index or the name"),
        ("photo.png --model own:good --target cat", 2, "class names are not known"),
        ("photo.png --model own:good --normalize best", 2, "normalize: expected"),
        ("photo.png --model own:good --colormap best", 2, "colormap"),
        ("photo.png --model own:good --fps 0", 2, "--fps"),
        ("photo.png --model own:good --size 1", 2, "size"),
        ("photo.png --model own:good --size big", 2, "--size"),
        ("photo.png --model own:good --device tpu", 2, "error: --device: expected"),
        ("photo.png --model own:good --out new.avi.exe", 2, "new.avi.exe"),
        ("photo.png --model own:good --out absent/new.mp4", 2, "absent"),
        ("photo.png --model own:good --out /sys/new.mp4", 1, "cannot write to the folder '/sys'"),
        (
            "photo.png --model own:good --save-maps maps.npz",
            2,
            "--save-maps must end in .safetensors",
        ),
        ("photo.png --model own:good --save-maps absent/m.safetensors", 2, "absent"),
        ("photo.png --model own:good --save-maps /sys/m.safetensors", 1, "cannot write to"),
        ("photo.png --model own:good --ffmpeg absent", 2, "ffmpeg"),
        ("photo.png --model own:training", 2, "eval()"),
        ("photo.png --model own:dictionary", 2, "got 2 in a dict"),
        ("photo.png --model own:independent", 2, "target"),
        ("photo.png --model own:nan", 1, "not finite"),
        ("photo.png --model own:broken", 1, "a bug of the user's"),
        ("photo.png --model own:refusing", 1, "the user's code does not like it"),
        ("photo.png", 2, "--model"),
        ("", 2, "Missing"),
        ("photo.png --model own:good --bogus", 2, "--bogus"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(options, code, message, folder, capsys):
    before = files(folder)
    assert main(["animate", *options.split()]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert said.err.startswith("camfuse: error: ")
    assert said.err.count("\n") == 1
    assert files(folder) == before


def test_debug_shows_the_traceback(folder, capsys):
    assert main(["animate", "photo.png", "--model", "own:broken", "--debug"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("camfuse: error: ")


def test_cheap_checks_come_before_the_model(folder, capsys):
    (folder / "own.py").write_text("raise RuntimeError('the model was loaded')")
    assert main(["animate", "photo.png", "--model", "own:good", "--size", "1"]) == 2
    assert "size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
@pytest.mark.parametrize("module", ["typer", "rich", "torch", "torch.nn", "numpy", "camfuse._C"])
def test_a_signal_while_libraries_are_imported_ends_the_command_quietly(module, number, code):
    """The signal comes as the import of ``module`` begins."""
    program = f"""
import os, sys
from camfuse.cli import main

class Interrupting:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {int(number)})

sys.meta_path.insert(0, Interrupting)
sys.exit(main(["info"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr


def test_all_that_the_commands_use_is_imported_before_they_begin():
    """Later, a signal would find an import under way, which may lose it."""
    used = {
        node.module
        for path in Path(camfuse.cli.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and not node.module.startswith("camfuse.cli")
        if node.module.startswith("camfuse.")
    }
    assert {"camfuse.animate_images", "camfuse.storage"} <= used
    program = f"""
import sys
from camfuse.cli import import_all
import_all()
print(*({used} - sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == [], done.stderr


def test_no_ffmpeg_at_all_is_a_failure(folder, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert main(["animate", "photo.png", "--model", "own:good"]) == 1
    assert "no ffmpeg found" in capsys.readouterr().err
    assert (folder / "photo.mp4").read_text() == "an earlier video"


def test_a_dying_ffmpeg_is_quoted_and_leaves_the_earlier_video(folder, capsys):
    dying = script(folder / "dying", "echo the disk is on fire >&2; exit 3")
    before = files(folder)
    assert main(["animate", "photo.png", "--model", "own:good", "--ffmpeg", dying]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "the disk is on fire" in said
    assert files(folder) == before


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_an_interrupt_while_encoding_leaves_no_file_and_no_process(number, code, folder):
    started = folder / "started"
    stuck = script(
        folder / "stuck",
        'case "$*" in *-encoders) echo " ------"; echo " V..... libx264"; exit;; esac;'
        f"echo $$ > {started}.part; mv {started}.part {started}; sleep 60",
    )
    before = files(folder)
    command = [sys.executable, "-m", "camfuse.cli", "animate", "photo.png", "--model", "own:good"]
    with subprocess.Popen(
        [*command, "--ffmpeg", stuck], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            encoder = wait_for(started, process)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code
    assert "Traceback" not in errors
    assert not group_is_alive(encoder)
    started.unlink()
    assert files(folder) == before


def test_the_installed_command_exits_with_the_code(folder):
    command = Path(sys.executable).with_name("camfuse")
    if not command.exists():
        pytest.skip("camfuse is not installed as a command")
    done = subprocess.run(
        [command, "animate", "absent.png", "--model", "own:good"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("camfuse: error: ")


def wait_for(path: Path, process: subprocess.Popen[str]) -> int:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return int(path.read_text())


def group_is_alive(group: int) -> bool:
    """Whether a process of the group runs; what was just killed may take a moment to go."""
    for _ in range(100):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, 0)
            time.sleep(0.05)
            continue
        return False
    return True
