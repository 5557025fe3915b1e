"""Ctrl-C at each stage of the job: code 130, no traceback, and the folder is as it was."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from camfuse.cli import main
from own_model import OWN
from videos import processes

INTERRUPT = "import signal; signal.raise_signal(signal.SIGINT)"
IN_FORWARD = f"""
from torch.nn.functional import relu

class Interrupted(nn.Module):
    def forward(self, x):
        {INTERRUPT}
        return x

def make():
    return Net(nn.Conv2d(3, 8, 3), Interrupted(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
               nn.Linear(8, 5)).eval()
"""
IN_BACKWARD = f"""
import torch

class Interrupting(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        {INTERRUPT}
        return gradient

class Interrupted(nn.Module):
    def forward(self, x):
        return Interrupting.apply(x)

def make():
    return Net(nn.Conv2d(3, 8, 3), Interrupted(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
               nn.Linear(8, 5)).eval()
"""
MODELS = {
    "import": f"{INTERRUPT}\n{OWN}",
    "making": f"{OWN}\n\ndef make():\n    {INTERRUPT}\n",
    "forward": OWN + IN_FORWARD,
    "backward": OWN + IN_BACKWARD,
}
STAGES = ["image", "model", "maps", "save", "video"]


@pytest.fixture
def folder(folder) -> Path:
    (folder / "photo.mp4").write_text("an earlier video")
    (folder / "maps.safetensors").write_text("earlier maps")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def animate(*options: str) -> int:
    options = ("--size", "64", "--save-maps", "maps.safetensors", *options)
    return main(["animate", "photo.png", "--model", "own:make", *options])


@pytest.mark.parametrize("place", MODELS)
def test_an_interrupt_within_the_model_leaves_everything_as_it_was(folder, capsys, place):
    (folder / "own.py").write_text(MODELS[place])
    before = contents(folder)
    assert animate() == 130
    assert "Traceback" not in capsys.readouterr().err
    assert contents(folder) == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("end", [False, True], ids=["begins", "ends"])
@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupt_as_a_stage_begins_or_ends(folder, capsys, monkeypatch, stage, end):
    """At the end of the last stage, the job is done: its files stay, whole."""
    from camfuse.animate import Clock

    plain = Clock.__init__

    def interrupting(self, progress=None):
        def tell(name, done, total):
            if name == stage and (done == total) == end:
                signal.raise_signal(signal.SIGINT)

        plain(self, tell)

    monkeypatch.setattr(Clock, "__init__", interrupting)
    before = contents(folder)
    assert animate() == 130
    assert "Traceback" not in capsys.readouterr().err
    assert processes(folder) == []
    after = contents(folder)
    assert after.keys() == before.keys()
    changed = {name for name in before if after[name] != before[name]}
    assert changed <= ({"photo.mp4"} if (stage, end) == ("video", True) else set())


def test_an_interrupt_between_photographs_keeps_the_whole_videos(folder, capsys, monkeypatch):
    (folder / "in").mkdir()
    for name in "abcdef":
        (folder / "in" / f"{name}.png").write_bytes((folder / "photo.png").read_bytes())
    from camfuse.result import AnimationResult

    plain = AnimationResult.to_dict

    def interrupting(self):
        if self.path.name == "b.mp4":
            signal.raise_signal(signal.SIGINT)
        return plain(self)

    monkeypatch.setattr(AnimationResult, "to_dict", interrupting)
    options = ["--model", "own:make", "--size", "64", "--out", "videos"]
    assert main(["animate", "in", *options, "--batch", "2"]) == 130
    assert processes(folder) == []
    made = sorted(path.name for path in (folder / "videos").iterdir())
    assert {"a.mp4", "b.mp4"} <= set(made) < {f"{name}.mp4" for name in "abcdef"}
    assert "Traceback" not in capsys.readouterr().err
