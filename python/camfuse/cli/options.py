"""Command-line options that several commands share, and how their texts are read."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

MAX_FPS = 1000

Model = Annotated[
    str,
    typer.Option(
        metavar="SPEC",
        help="torchvision:NAME, timm:NAME, efficientnet-lite:0|1|2, or package.module:callable, "
        "which imports and runs your own code and must return a model in eval mode.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="A .safetensors file or a saved state dict; 'random' for an untrained model. "
        "By default the library's pretrained weights.",
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAMES",
        help="leaf (default), all, conv, names or globs; comma separated or repeated.",
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N.")]
Ffmpeg = Annotated[
    Path | None, typer.Option(metavar="PATH", help="The ffmpeg to run; found by itself if absent.")
]
Batch = Annotated[
    int, typer.Option(metavar="N", min=1, help="Images per pass, for the memory they need.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def parse_layers(texts: Sequence[str] | None) -> list[str]:
    """Names and globs from comma separated texts; ``["leaf"]`` if there are none."""
    if not texts:
        return ["leaf"]
    return [name for text in texts for name in map(str.strip, text.split(",")) if name]


def parse_fps(text: str) -> Fraction:
    """An exact rate from ``5``, ``29.97`` or ``24000/1001``.

    Raises:
        ValueError: If it is no number in (0, 1000].
    """
    try:
        fps = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"--fps: expected a number or a ratio such as 24000/1001, got {text!r}"
        ) from None
    if not 0 < fps <= MAX_FPS:
        raise ValueError(f"--fps: expected more than 0 and at most {MAX_FPS}, got {text}")
    return fps


def parse_target(text: str | None) -> int | str | None:
    """A class by its index or by its name; ``None``, the model's own first choice, stays so."""
    try:
        return None if text is None else int(text)
    except ValueError:
        return text
