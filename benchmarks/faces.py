"""The faces of other CAM libraries against these libraries, as their users call them.

Both sides run the same code on one late layer of ResNet-50 whose parameters require grad, as people
load models; they differ in what is imported. Time and extra memory.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from benchmarks.harness import Claim, Work, compare
from benchmarks.models import build, image
from benchmarks.sides import extra_memory

MODEL = "resnet50"
FACE = "camfuse.compat."


@dataclass(frozen=True)
class Case:
    """What users of a library do.

    Attributes:
        module: Where the library has its methods.
        methods: Which are measured.
        batch: Number of images.
        call: From the method's class, a model, one of its layers and images to maps.
        time: How many times as fast the face is to be; None where that is only told.
        memory: How much of the library's extra memory it may need, likewise.
    """

    module: str
    methods: tuple[str, ...]
    batch: int
    call: Callable[[Any, nn.Module, nn.Module, Tensor], Any]
    time: str | None = None
    memory: str | None = None


def pytorch_grad_cam(kind: Any, model: nn.Module, layer: nn.Module, x: Tensor) -> Any:
    """A new object for each batch, as in its README."""
    with kind(model, [layer]) as cam:
        return cam(x, [lambda output: output[3]] * len(x))


def torchcam(kind: Any, model: nn.Module, layer: nn.Module, x: Tensor) -> Any:
    """Extractor, the user's own pass, maps."""
    with kind(model, layer) as extractor:
        scores = model(x)
        return extractor([3] * len(x), scores)[0]


def captum(kind: Any, model: nn.Module, layer: nn.Module, x: Tensor) -> Any:
    """One attribution."""
    return kind(model, layer).attribute(x, target=3).detach()


CASES = {
    "pytorch-grad-cam": Case(
        "pytorch_grad_cam",
        ("GradCAM", "GradCAMPlusPlus", "LayerCAM"),
        4,
        pytorch_grad_cam,
        time=">= 2.4",
    ),
    "torchcam": Case(
        "torchcam.methods", ("GradCAM", "LayerCAM"), 8, torchcam, time=">= 1", memory="<= 0.5"
    ),
    "captum": Case("captum.attr", ("LayerGradCam",), 4, captum),
}


def run(quick: bool) -> list[Claim]:
    """Two claims per library and method."""
    claims = []
    for library, case in CASES.items():
        for method in case.methods[: 1 if quick else None]:
            theirs, ours = (work(side, library, method) for side in ("", FACE))
            np.testing.assert_allclose(np.asarray(ours()), np.asarray(theirs()), atol=1e-4)
            pair = compare(ours, theirs, quick=quick, seconds=0)
            name = f"{method}, batch {case.batch}"
            claims.append(
                Claim(f"{library} / its face", name, pair.ratio, case.time, pair.detail())
            )
            needed = [
                extra_memory("benchmarks.faces:work", side, library, method) for side in ("", FACE)
            ]
            detail = {
                "theirs_MiB": needed[0].second / 2**20,
                "ours_MiB": needed[1].second / 2**20,
            }
            claims.append(
                Claim(
                    f"extra memory of the face / of {library}",
                    name,
                    needed[1].second / needed[0].second,
                    case.memory,
                    detail,
                )
            )
            print(f"{library} {name}: {pair.ratio:.2f}, {claims[-1].ratio:.2f}", flush=True)
    return claims


def work(side: str, library: str, method: str) -> Work:
    """What a user of one side calls, ready to run; ``side`` goes before the import."""
    case = CASES[library]
    kind = getattr(importlib.import_module(side + case.module), method)
    model, x = build(MODEL).requires_grad_(True), image(case.batch)
    return lambda: case.call(kind, model, model.get_submodule("layer4"), x)
