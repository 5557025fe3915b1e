"""Whole animation to MP4 against the CAManim procedure: time, and bytes written.

Compared: ``camfuse.animate`` of all modules, containers included, on a model that is loaded, and
:mod:`benchmarks.camanim`, our re-creation of a pass per layer, a matplotlib figure per frame and
ffmpeg on PNG files. Both make frames by each layer's range and by the range over all layers. The
procedure takes minutes and runs once, amid rounds of ours; its maps are then compared with ours.
Bytes are those of every file made: PNG files and videos against the one video.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import camfuse
from benchmarks import camanim
from benchmarks.harness import Claim, against_one
from benchmarks.models import build
from benchmarks.photographs import cat_image
from camfuse.images import Preprocessing
from camfuse.models import LoadedModel


@dataclass(frozen=True)
class Case:
    """One model, the side of its input, and which modules are shown."""

    model: str
    size: int = 224
    layers: tuple[str, ...] | None = None  # all


CASES = (Case("resnet152"), Case("densenet161"))
QUICK = (Case("resnet18", 64, ("layer1", "layer2.0.conv1", "layer3.1.bn2", "layer4")),)


def run(quick: bool) -> list[Claim]:
    """A claim on time and one on bytes for each model."""
    return [claim for case in (QUICK if quick else CASES) for claim in measured(case, quick)]


def measured(case: Case, quick: bool) -> list[Claim]:
    """Both claims of one model."""
    preprocessing = Preprocessing(size=(case.size, case.size))
    model = build(case.model).requires_grad_(True)  # as the procedure needs it
    loaded = LoadedModel.of(model).with_(preprocessing=preprocessing)
    photograph = cat_image()
    x = loaded.inputs([photograph])
    pixels = np.array(photograph.resize((case.size, case.size)))
    print(f"{case.model}: a pass and two figures for each layer, once", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        theirs: list[camanim.Animation] = []

        def procedure() -> float:
            theirs.append(camanim.animate(model, x, pixels, Path(folder, "theirs"), case.layers))
            return sum(theirs[0].seconds.values())

        Path(folder, "theirs").mkdir()
        Path(folder, "ours").mkdir()
        animate = partial(
            camfuse.animate,
            loaded,
            photograph,
            Path(folder, "ours", "cat.mp4"),
            layers=case.layers or "all",
        )
        pair = against_one(animate, procedure, quick=quick)
        ours, files = animate(), list(Path(folder, "ours").iterdir())
        written = sum(path.stat().st_size for path in files)
    camanim.check_maps(theirs[0].maps, ours.stack)

    frames = {"frames": ours.video.frames, "their_frames": 2 * len(theirs[0].maps)}
    stages = {f"their_{stage}_s": seconds for stage, seconds in theirs[0].seconds.items()}
    rounds = {"rounds": f"1 of theirs amid {2 if quick else 8} of ours"}
    ratio = theirs[0].bytes_written / written
    sizes = {"our_bytes": written, "their_bytes": theirs[0].bytes_written}
    return [
        Claim(
            "CAManim procedure / whole animation, time",
            case.model,
            pair.ratio,
            ">= 200",
            pair.detail() | stages | frames | rounds,
        ),
        Claim(
            "CAManim procedure / whole animation, bytes written",
            case.model,
            ratio,
            ">= 20",
            sizes | frames,
        ),
    ]
