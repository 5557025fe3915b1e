"""Our re-creation of the CAManim procedure from its published description; no code is theirs.

Kaczmarek et al., "CAManim: Animating end-to-end network activation maps", PLoS ONE 19(6), 2024. For
every module of ``named_modules``, containers included: hooks, one whole forward and backward pass
with gradients of parameters, Grad-CAM in NumPy, ``cv2.resize`` to the size of the input. Whatever
raises is left out. The maps are normalized, each by its own range and by the range over all layers,
laid over the photograph and saved as a PNG by matplotlib, one for each layer and normalization.
ffmpeg makes a video of each set of files.

What differs, each time to the procedure's advantage or to none: an activation is copied, because
a module that works in place would overwrite it; ranges are those of maps that no one has scaled
before, and a constant map becomes 0.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from torch import Tensor, nn

from camfuse.stack import CamStack
from camfuse.video import find_ffmpeg

Map = NDArray[np.float32]  # [h, w]
FRAMES_PER_SECOND = 5


@dataclass(frozen=True)
class Animation:
    """What a run made, and what it took.

    Attributes:
        maps: By module, at the layer's resolution.
        seconds: Wall time of the maps, of the figures, and of ffmpeg.
        bytes_written: Size of all PNG files and videos.
    """

    maps: dict[str, Map]
    seconds: dict[str, float]
    bytes_written: int


def animate(
    model: nn.Module,
    x: Tensor,
    photograph: NDArray[np.uint8],
    folder: Path,
    only: Collection[str] | None = None,
) -> Animation:
    """Runs the procedure.

    Args:
        model: A classifier; its parameters get gradients.
        x: Its input ``[1, 3, H, W]``.
        photograph: What maps are laid over ``[H, W, 3]``.
        folder: An empty folder for the files.
        only: Modules to take instead of all.
    """
    clock = [time.perf_counter()]
    names = [name for name, _ in model.named_modules() if name and (only is None or name in only)]
    maps = layer_maps(model, x, names)
    clock.append(time.perf_counter())
    height, width = x.shape[2:]
    grown = {name: cv2.resize(map_, (width, height)) for name, map_ in maps.items()}
    everything = np.concatenate([one.ravel() for one in grown.values()])
    for norm in ("layer", "global"):
        (folder / norm).mkdir()
        for index, (name, map_) in enumerate(grown.items()):
            heat = normalized(map_, map_ if norm == "layer" else everything)
            save_figure(folder / norm / f"{index:06}.png", overlay(photograph, heat), name)
    clock.append(time.perf_counter())
    for norm in ("layer", "global"):
        encode(folder / norm, folder / f"{norm}.mp4")
    clock.append(time.perf_counter())
    stages = zip(("maps", "figures", "ffmpeg"), clock, clock[1:], strict=False)
    return Animation(
        maps=maps,
        seconds={stage: end - start for stage, start, end in stages},
        bytes_written=sum(path.stat().st_size for path in folder.rglob("*.*")),
    )


def layer_maps(model: nn.Module, x: Tensor, names: Iterable[str]) -> dict[str, Map]:
    """Grad-CAM of the arg-max class after ReLU, for each module that does not raise."""
    maps = {}
    for name in names:
        try:
            maps[name] = layer_map(model, x, model.get_submodule(name))
        except Exception as error:  # as described: whatever it is, the layer is left out
            print(f"  skipping {name}: {type(error).__name__}", flush=True)
    return maps


def layer_map(model: nn.Module, x: Tensor, layer: nn.Module) -> Map:
    """One layer's map ``[h, w]``, from passes of its own."""
    activations: list[NDArray[np.float32]] = []
    gradients: list[NDArray[np.float32]] = []

    def remember(module: nn.Module, args: Any, output: Tensor) -> None:
        activations.append(output.detach().clone().cpu().numpy())
        # The gradient of the first call comes last.
        output.register_hook(lambda gradient: gradients.insert(0, gradient.cpu().numpy()))

    handle = layer.register_forward_hook(remember)
    try:
        output = model(x)
    finally:
        handle.remove()
    model.zero_grad()
    output[0, int(output.argmax())].backward(retain_graph=True)
    A, G = activations[0], gradients[0]
    weights = np.mean(G, axis=(2, 3))
    map_: Map = np.maximum(np.sum(weights[:, :, None, None] * A, axis=1)[0], 0)
    return map_


def normalized(map_: Map, over: Map) -> Map:
    """By the range of ``over``, into [0, 1]."""
    low, high = over.min(), over.max()
    scaled: Map = (map_ - low) / (high - low) if high > low else np.zeros_like(map_)
    return scaled


def overlay(photograph: NDArray[np.uint8], heat: Map) -> NDArray[np.uint8]:
    """Half photograph, half colours, divided by the maximum ``[H, W, 3]``."""
    colours = cv2.applyColorMap(np.uint8(255 * heat), cv2.COLORMAP_JET)[..., ::-1]
    blend = 0.5 * np.float32(colours) / 255 + 0.5 * np.float32(photograph) / 255
    finished: NDArray[np.uint8] = np.uint8(255 * blend / blend.max())
    return finished


def save_figure(path: Path, picture: NDArray[np.uint8], title: str) -> None:
    """A figure of matplotlib's usual size, as PNG."""
    with mpl.rc_context({"backend": "agg"}):
        figure, axes = plt.subplots()
        axes.imshow(picture)
        axes.set_title(title)
        figure.savefig(path)
        plt.close(figure)


def encode(folder: Path, video: Path) -> None:
    """H.264 of the folder's PNG files."""
    command = [str(find_ffmpeg()), "-loglevel", "error", "-framerate", str(FRAMES_PER_SECOND)]
    command += ["-i", str(folder / "%06d.png"), "-c:v", "libx264", "-pix_fmt", "yuv420p"]
    subprocess.run([*command, str(video)], check=True)


def check_maps(theirs: dict[str, Map], ours: CamStack) -> None:
    """Raises unless the maps agree after ReLU, and most layers are there on both sides.

    Maps that are rounding noise are not compared.
    """
    known = {layer.name: layer for layer in ours.layers}
    shared = [name for name in theirs if name in known]
    if len(shared) < 0.8 * len(theirs):
        raise AssertionError(f"expected the {len(theirs)} layers, got {len(shared)} of them")
    for name in shared:
        if known[name].degenerate:
            continue
        signed = ours[name][0]
        expected, scale = torch.from_numpy(theirs[name]), float(signed.abs().max())
        torch.testing.assert_close(signed.clamp(min=0), expected, rtol=0, atol=1e-3 * scale)
