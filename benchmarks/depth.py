"""Time against the number of layers, for five ways to see all of them, and bytes written.

ResNets from 18 to 101 layers, one photograph. Maps of all convolutions: pytorch-grad-cam called
once per layer, torchcam with one backward pass, ``camfuse.layer_cams``, and the bare passes. Whole
videos of all modules: the CAManim procedure (:mod:`benchmarks.camanim`), ``camfuse.animate``, and
the floor (:mod:`benchmarks.animation_floor`). What takes a pass per layer runs once, after rounds
of the others in turn. The maps of all are seen to agree. Drawn as ``results/depth.svg``.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchcam.methods
from matplotlib.axes import Axes
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

import camfuse
from benchmarks import camanim
from benchmarks.animation_floor import ready_encoder
from benchmarks.harness import Claim, Work, alternate, once
from benchmarks.late_layer import check_same
from benchmarks.models import bare_passes, build
from benchmarks.photographs import cat_image
from benchmarks.plots import figure
from camfuse.images import Preprocessing
from camfuse.layers import select_layers
from camfuse.models import LoadedModel

NETWORKS = ("resnet18", "resnet34", "resnet50", "resnet101")
PER_LAYER = "pytorch-grad-cam, once per layer"
TORCHCAM = "torchcam, one backward pass"
MAPS = "camfuse, maps"
PASSES = "bare passes"
PROCEDURE = "CAManim procedure"
VIDEO = "camfuse, video"
FLOOR = "passes and encoding"


@dataclass
class Found:
    """One network."""

    network: str
    convolutions: int
    frames: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    bytes_written: dict[str, int] = field(default_factory=dict)


def run(quick: bool) -> list[Claim]:
    """Ratios for each network, deepest first; none has a goal here."""
    networks, size = (NETWORKS[:1], 64) if quick else (NETWORKS, 224)
    found = []
    for network in networks:
        found.append(measured(network, size, quick))
        print(network, {way: round(one, 3) for way, one in found[-1].seconds.items()}, flush=True)
    with figure("depth", 3, quick=quick) as axes:
        draw(axes, found)
    return [claim for one in reversed(found) for claim in claims_of(one)]


def claims_of(found: Found) -> list[Claim]:
    """How many times as long as ours every other way takes, and as many bytes."""
    case = f"{found.network}, {found.convolutions} convolutions, {found.frames} frames"
    of_maps = [(way, MAPS) for way in (PER_LAYER, TORCHCAM, PASSES)]
    pairs = [(PROCEDURE, VIDEO), (FLOOR, VIDEO), *of_maps]
    claims = [
        Claim(
            f"{theirs} / {ours}",
            case,
            found.seconds[theirs] / found.seconds[ours],
            None,
            {"ours_s": found.seconds[ours], "theirs_s": found.seconds[theirs]},
        )
        for theirs, ours in pairs
    ]
    ratio = found.bytes_written[PROCEDURE] / found.bytes_written[VIDEO]
    bytes_ = {f"bytes, {way}": count for way, count in found.bytes_written.items()}
    return [*claims, Claim(f"bytes written, {PROCEDURE} / {VIDEO}", case, ratio, None, bytes_)]


def measured(network: str, size: int, quick: bool) -> Found:
    """Times every way on one network."""
    model, frozen = build(network).requires_grad_(True), build(network)  # the others need gradients
    preprocessing = Preprocessing(size=(size, size))
    loaded = LoadedModel.of(model).with_(preprocessing=preprocessing)
    photograph = cat_image()
    x = loaded.inputs([photograph])
    names = list(select_layers(model, "conv").names.values())
    found = Found(network, len(names))
    maps = partial(camfuse.layer_cams, model, x, layers=names)
    category = int(model(x).argmax())
    per_layer = partial(maps_per_layer, model, x, names, category)
    in_one_pass = partial(maps_in_one_pass, model, x, names, category)
    check_maps(maps(), in_one_pass())
    check_same(camfuse.cam(model, x, names[-1], target=category), per_layer()[-1])

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = partial(camfuse.animate, loaded, photograph, folder / "cat.mp4", layers="all")
        result = video()
        encode = ready_encoder(result, folder / "floor.mp4")

        def floor() -> None:
            bare_passes(frozen, x)
            encode()

        ways: dict[str, Work] = {
            TORCHCAM: in_one_pass,
            MAPS: maps,
            PASSES: partial(bare_passes, frozen, x),
            VIDEO: video,
            FLOOR: floor,
        }
        times = alternate(list(ways.values()), quick=quick, seconds=0)
        for way, rounds in zip(ways, times, strict=True):
            found.seconds[way] = statistics.median(rounds)
        found.seconds[PER_LAYER] = once(per_layer)
        (folder / "theirs").mkdir()
        pixels = np.array(photograph.resize((size, size)))
        theirs = camanim.animate(model, x, pixels, folder / "theirs")
    camanim.check_maps(theirs.maps, result.stack)
    found.seconds[PROCEDURE] = sum(theirs.seconds.values())
    found.frames = result.frames
    found.bytes_written = {PROCEDURE: theirs.bytes_written, VIDEO: result.bytes_written}
    return found


def maps_per_layer(
    model: nn.Module, x: Tensor, names: list[str], category: int
) -> list[np.ndarray]:
    """Maps ``[1, H, W]`` of pytorch-grad-cam: a forward and a backward pass for each."""
    maps = []
    for name in names:
        with GradCAM(model, [model.get_submodule(name)]) as cam:
            maps.append(cam(x, [ClassifierOutputTarget(category)]))
    return maps


def maps_in_one_pass(model: nn.Module, x: Tensor, names: list[str], category: int) -> list[Tensor]:
    """Maps ``[1, h, w]`` of torchcam, after ReLU."""
    with torchcam.methods.GradCAM(model, list(names)) as cam:
        maps: list[Tensor] = cam(category, model(x), normalized=False)
    return maps


def check_maps(ours: camfuse.CamStack, theirs: list[Tensor]) -> None:
    """Raises unless maps agree after ReLU."""
    for layer, map_ in zip(ours.layers, theirs, strict=True):
        signed = ours[layer.name]
        scale = float(signed.abs().max())
        torch.testing.assert_close(signed.clamp(min=0), map_, rtol=0, atol=1e-3 * scale)


def draw(axes: list[Axes], found: list[Found]) -> None:
    """Maps, videos and bytes."""
    convolutions, frames = [one.convolutions for one in found], [one.frames for one in found]
    for ways, x, label, ax in (
        ((PER_LAYER, TORCHCAM, MAPS, PASSES), convolutions, "convolutions", axes[0]),
        ((PROCEDURE, VIDEO, FLOOR), frames, "frames", axes[1]),
    ):
        for way in ways:
            ax.plot(x, [one.seconds[way] for one in found], "o-", label=way)
        ax.set(xlabel=label, ylabel="seconds")
        ax.legend(loc="center right", bbox_to_anchor=(1, 0.42))  # between the lines
    for way in (PROCEDURE, VIDEO):
        axes[2].plot(frames, [one.bytes_written[way] / 1e6 for one in found], "o-", label=way)
    axes[2].set(xlabel="frames", ylabel="MB written")
    axes[2].legend()
