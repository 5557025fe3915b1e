"""Command-line options that several commands share, and how their texts are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from camfuse.class_names import NamedTarget

MAX_FPS = 1000

_METHODS = (
    "gradcam", "gradcam++", "xgradcam", "hirescam", "elementwise", "layercam", "shapleycam",
    "smoothgradcam++", "finercam", "cam", "legrad", "fullgrad", "eigencam", "eigengradcam",
    "segeigencam", "kpcacam", "fem", "scorecam", "sscam", "iscam", "ablationcam", "randomcam",
)  # fmt: skip
_COLORMAPS = ("turbo", "jet", "viridis", "magma")
_SAVED_LAYERS = ("stage-ends", "every:", "type:")
_LAYERS = ("leaf", "all", "conv", *_SAVED_LAYERS)
_MODELS = ("torchvision:", "timm:", *(f"efficientnet-lite:{size}" for size in range(3)))
FORMATS = ("mp4", "webm", "mkv", "gif", "webp")


def completes(words: Sequence[str]) -> object:
    """What a shell offers, also after a comma.

    Words are written out in this file, as importing the engine would take seconds.
    """

    def complete(incomplete: str) -> Iterator[str]:
        before, comma, last = incomplete.rpartition(",")
        return (f"{before}{comma}{word}" for word in words if word.startswith(last))

    return complete


_MODEL_HELP = (
    "torchvision:NAME, timm:NAME, efficientnet-lite:0|1|2, or package.module:callable, which "
    "imports and runs your own code and must return a model in eval mode."
)
_WEIGHTS_HELP = (
    "A .safetensors file or a saved state dict; 'random' for an untrained model. By default the "
    "library's pretrained weights."
)
_METHOD_HELP = "The CAM method; camfuse info lists them."
_TARGET_HELP = "Index or name of a class; the model's first choice by default."

Image = Annotated[Path, typer.Argument(metavar="IMAGE", help="The photograph.", show_default=False)]
Model = Annotated[
    str,
    typer.Option(metavar="SPEC", help=_MODEL_HELP, autocompletion=completes(_MODELS)),
]
Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        metavar="SPEC",
        help=_MODEL_HELP + " Several are shown side by side.",
        autocompletion=completes(_MODELS),
    ),
]
Weights = Annotated[str | None, typer.Option(metavar="FILE", help=_WEIGHTS_HELP)]
WeightsOfEach = Annotated[
    list[str] | None,
    typer.Option("--weights", metavar="FILE", help=_WEIGHTS_HELP + " One for each --model."),
]
Method = Annotated[
    str,
    typer.Option(metavar="NAME", help=_METHOD_HELP, autocompletion=completes(_METHODS)),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help=_METHOD_HELP + " gradcam by default; several are shown side by side, from one pass.",
        autocompletion=completes(_METHODS),
    ),
]
Target = Annotated[str | None, typer.Option(metavar="CLASS", help=_TARGET_HELP)]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="CLASS",
        help=_TARGET_HELP + " Several are shown side by side, from one forward pass.",
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAMES",
        help="leaf (default), all, conv, type:CLASS, names or globs; thinned out by stage-ends "
        "(the last before the size changes) or every:N. Comma separated or repeated.",
        autocompletion=completes(_LAYERS),
    ),
]
SavedLayers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAMES",
        help="type:CLASS, names or globs of saved layers, all that were shown by default; thinned "
        "out by stage-ends (the last before the size changes) or every:N. Comma separated or "
        "repeated.",
        autocompletion=completes(_SAVED_LAYERS),
    ),
]
Normalize = Annotated[
    str,
    typer.Option(
        metavar="layer|global|both",
        help="Show each map by its own range, by the range over all layers, or both.",
        autocompletion=completes(("layer", "global", "both")),
    ),
]
NormalizeOne = Annotated[
    str,
    typer.Option(
        "--normalize",
        metavar="layer|global",
        help="Show each map by its own range, or by the range over all layers.",
        autocompletion=completes(("layer", "global")),
    ),
]
Colormap = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="turbo, jet, viridis, magma, or matplotlib's.",
        autocompletion=completes(_COLORMAPS),
    ),
]
Fps = Annotated[str, typer.Option(metavar="RATE", help="Layers per second: 5, 24000/1001.")]
Size = Annotated[int, typer.Option(metavar="PIXELS", help="Longer side of a panel.")]
Curve = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Draw a score per layer below the panels: evidence (the height of each map against "
        "all layers), or a series of the saved maps, such as ybroad.",
        autocompletion=completes(("evidence", "ybroad")),
    ),
]
Keyframes = Annotated[
    int | None,
    typer.Option(
        metavar="K",
        help="Show only the K layers whose maps differ most; of scored ones, those that score high "
        "as well.",
    ),
]
Road = Annotated[
    bool,
    typer.Option(
        "--road",
        help="Score every layer by ybROAD: what the model still says without the pixels that its "
        "map points at, and without the others. Drawn below the panels; takes eight passes per "
        "map.",
    ),
]
Percentages = Annotated[
    str,
    typer.Option(metavar="P,P", help="How much of the photograph is removed, comma separated."),
]
Seeds = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=1,
        help="How many times noise is drawn, for the spread of a score; each costs its own passes.",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Also draw the scores over the layers, with their spread and what maps score that "
        "know nothing: .png, .svg or .pdf. Needs camfuse[metrics].",
    ),
]
Codec = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="h264 or av1 in .mp4, vp9 or av1 in .webm, ffv1, h264, vp9 or av1 in .mkv; the first "
        "by default.",
        autocompletion=completes(("h264", "av1", "vp9", "ffv1")),
    ),
]
Crf = Annotated[
    int | None,
    typer.Option(metavar="N", help="Quality in the codec's own numbers; less is better."),
]
Effort = Annotated[
    str,
    typer.Option(
        metavar="fast|small",
        help="Encode fast, or into a smaller file.",
        autocompletion=completes(("fast", "small")),
    ),
]
AugSmooth = Annotated[
    bool,
    typer.Option(
        help="Average maps over six passes: the image and its mirror image, each at 0.9, 1 and 1.1 "
        "times its values.",
    ),
]
EigenSmooth = Annotated[
    bool,
    typer.Option(
        help="Show the first principal component of what each map adds up over the channels.",
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Perturbed images that go through the model at once, for methods that perturb.",
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Most memory a pass may need, such as 2GB."),
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


def parse_percentages(text: str) -> list[float]:
    """Numbers from comma separated text.

    Raises:
        ValueError: If one is no number.
    """
    try:
        return [float(one) for one in text.split(",") if one.strip()]
    except ValueError:
        raise ValueError(f"--percentages: expected numbers such as 20,40, got {text!r}") from None


def parse_format(text: str) -> str:
    """The ending of a video's name from ``gif`` or ``.gif``.

    Raises:
        ValueError: If there is no such format.
    """
    from camfuse.formats import one_of

    name = text.removeprefix(".").lower()
    if name not in FORMATS:
        raise ValueError(f"--format: expected {one_of(FORMATS)}, got {text!r}")
    return f".{name}"


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


def parse_target(texts: str | Sequence[str] | None) -> NamedTarget:
    """Classes by index or by name; ``None``, the model's own first choice, stays so.

    Raises:
        ValueError: If a text is empty.
    """
    if texts is None:
        return None
    if not isinstance(texts, str):
        if not texts:
            return None
        from camfuse.targets import Each

        targets = [_index_or_name(text) for text in texts]
        return targets[0] if len(targets) == 1 else Each(targets)  # type: ignore[arg-type]
    return _index_or_name(texts)


def _index_or_name(text: str) -> int | str:
    if not text.strip():
        raise ValueError(f"--target: expected the index or the name of a class, got {text!r}")
    return int(text) if re.fullmatch(r"[+-]?[0-9]+", text) else text
