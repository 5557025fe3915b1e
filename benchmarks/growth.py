"""How time and memory grow with layers, batch, channels, map, frame and number of images.

Each is varied alone over powers of two. Times are medians of rounds that take all amounts in turn;
extra memory is measured by :mod:`benchmarks.sides`. A straight line is fitted to the logarithms:
its slope is the exponent of the growth, and its standard error the spread. Overheads make slopes
smaller, so that of the last step alone is reported beside it.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

import camfuse
from benchmarks.harness import Claim, Work, alternate
from benchmarks.models import build, image
from benchmarks.photographs import cat, cat_image
from benchmarks.plots import figure
from benchmarks.sides import extra_memory
from camfuse import ops
from camfuse.question import Question

GOAL = "<= 1.1"
_NOISE = 2**20  # bytes, below which extra memory is what allocators happen to keep


class Chain(nn.Module):
    """Equal convolutions one after the other, none of which lets values or gradients fade.

    Where they fade to denormal numbers, processors take twenty times as long.
    """

    def __init__(self, layers: int, channels: int = 32) -> None:
        super().__init__()
        widths = [3, *[channels] * layers]
        self.convs = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)))
        self.head = nn.Linear(channels, 10)
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.convs(x).mean((2, 3)))
        return found


def chain(layers: int) -> nn.Module:
    torch.manual_seed(0)
    return Chain(layers).eval().requires_grad_(False)


def of_layers(layers: int) -> Work:
    """Maps of so many equal convolutions."""
    return partial(camfuse.layer_cams, chain(layers), image(1, 56), layers="conv")


def of_batch(batch: int) -> Work:
    """Maps of ResNet-18's leaves for so many images at once."""
    return partial(camfuse.layer_cams, build("resnet18"), image(batch))


def of_channels(channels: int) -> Work:
    """Grad-CAM's map of a layer of so many channels."""
    return one_layer(8, channels, 28)


def of_map_size(side: int) -> Work:
    """Grad-CAM's map of a layer with so long a side."""
    return one_layer(1, 256, side)


def one_layer(batch: int, channels: int, side: int) -> Work:
    """Grad-CAM's map from a ready activation and gradient."""
    A, G = (torch.randn(batch, channels, side, side) for _ in range(2))
    return lambda: ops.layer_cam(A, G, ["gradcam"])


def of_frame_size(side: int) -> Work:
    """Frames of 16 layers with panels of so long a side."""
    stack = camfuse.layer_cams(chain(16), cat(56), layers="conv")

    def frames() -> None:
        for _ in camfuse.render(stack, cat_image(), size=side, pixel_format="i420"):
            pass

    return frames


def of_images(count: int) -> Work:
    """Videos of so many photographs in a folder."""
    folder = tempfile.TemporaryDirectory()
    photographs = [Path(folder.name, f"{index}.png") for index in range(count)]
    for path in photographs:
        cat_image().resize((224, 224)).save(path)
    out = Path(folder.name, "videos")
    out.mkdir()
    model = build("resnet18")

    def videos() -> None:
        question, style = Question(layers="conv"), camfuse.VideoStyle(size=112)
        for _ in camfuse.animate_images(model, photographs, out, question=question, style=style):
            pass
        folder.name  # noqa: B018 - the folder lasts as long as the work

    return videos


@dataclass(frozen=True)
class Sweep:
    """One input that grows: ``prepare`` makes the work for an amount of it."""

    prepare: Callable[[int], Work]
    amounts: tuple[int, ...]
    unit: str
    power: int = 1  # an image grows with the square of its side

    def grown(self, amount: int) -> int:
        return amount**self.power


SWEEPS = {
    "layers": Sweep(of_layers, (16, 32, 64, 128, 256), "layers"),
    "batch": Sweep(of_batch, (1, 2, 4, 8, 16), "images in a batch"),
    "channels": Sweep(of_channels, (64, 128, 256, 512, 1024, 2048), "channels"),
    "map_size": Sweep(of_map_size, (14, 28, 56, 112, 224), "positions of a map", power=2),
    "frame_size": Sweep(of_frame_size, (112, 224, 448, 896, 1792), "pixels of a panel", power=2),
    "images": Sweep(of_images, (1, 2, 4, 8, 16), "photographs"),
}


def run(quick: bool) -> list[Claim]:
    """For each sweep a claim on time and one on memory, and ``results/growth-NAME.svg``."""
    names = ("layers", "map_size") if quick else tuple(SWEEPS)
    return [claim for name in names for claim in measured(name, SWEEPS[name], quick)]


def measured(name: str, sweep: Sweep, quick: bool) -> list[Claim]:
    """Both claims of one sweep."""
    amounts = sweep.amounts[:3] if quick else sweep.amounts
    times = alternate([sweep.prepare(one) for one in amounts], quick=quick, seconds=0.05)
    seconds = [statistics.median(one) for one in times]
    prepare = f"benchmarks.growth:{sweep.prepare.__name__}"
    needed = [extra_memory(prepare, one).second for one in amounts]

    grown = [sweep.grown(one) for one in amounts]
    claims = []
    with figure(f"growth-{name}", 2, quick=quick) as axes:
        for ax, (quantity, unit, values) in zip(
            axes,
            [
                ("time", "ms", [1e3 * one for one in seconds]),
                ("memory", "MiB", [max(one, _NOISE) / 2**20 for one in needed]),
            ],
            strict=True,
        ):
            exponent, error = fitted_exponent(grown, values)
            ax.plot(grown, values, "o-", label=f"exponent {exponent:.2f} ± {error:.2f}")
            ax.plot(grown, [values[0] * one / grown[0] for one in grown], "k:", label="linear")
            ax.set(xlabel=sweep.unit, ylabel=f"{quantity}, {unit}")
            ax.legend()
            detail = {"standard_error": error, "last_step": local_exponent(grown, values)}
            detail |= {f"{one}_{unit}": value for one, value in zip(amounts, values, strict=True)}
            claims.append(Claim(f"growth of {quantity}, exponent", name, exponent, GOAL, detail))
            print(f"{quantity} against {name}: exponent {exponent:.2f} ± {error:.2f}", flush=True)
    return claims


def fitted_exponent(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The slope of log y over log x, by least squares, and its standard error."""
    u, v = [math.log(one) for one in x], [math.log(one) for one in y]
    slope, intercept = statistics.linear_regression(u, v)
    residual = sum((b - intercept - slope * a) ** 2 for a, b in zip(u, v, strict=True))
    spread = sum((a - statistics.fmean(u)) ** 2 for a in u)
    return slope, math.sqrt(residual / (len(u) - 2) / spread)


def local_exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of log y over log x between the last two points."""
    return math.log(y[-1] / y[-2]) / math.log(x[-1] / x[-2])
