"""One late layer's map against pytorch-grad-cam 1.5.7, on the same model, layer and images.

pytorch-grad-cam normalises a map once at layer resolution and once more after upsampling; the check
that both sides compute the same thing applies that second normalisation to camfuse's maps.

Usage: python -m benchmarks.late_layer [--quick]   (needs `pip install camfuse[peers]`)
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import torch
from pytorch_grad_cam import GradCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

import camfuse
from benchmarks.harness import Claim, compare, report
from benchmarks.models import build, image

BATCH = 4
LAYERS = {"resnet50": "layer4.2", "densenet121": "features.norm5", "mobilenet_v3_large": "features"}
METHODS = {"gradcam": GradCAM, "layercam": LayerCAM}


def main(quick: bool) -> None:
    """Prints one claim per model and method."""
    claims = []
    print(f"{torch.get_num_threads()} threads, batch {BATCH}, 224 x 224")
    for name, layer in list(LAYERS.items())[: 1 if quick else None]:
        for method, peer in METHODS.items():
            model, x = build(name), image(BATCH)
            model.requires_grad_(True)  # pytorch-grad-cam needs it
            with torch.no_grad():
                classes = model(x).argmax(1).tolist()
            with peer(model, [model.get_submodule(layer)]) as theirs_cam:
                targets = [ClassifierOutputTarget(one) for one in classes]
                theirs = partial(theirs_cam, x, targets)
                ours = partial(camfuse.cam, model, x, layer, method=method)
                _check_same(ours(), theirs())
                pair = compare(ours, theirs, 5 if quick else 11, seconds=0.2)
            claims.append(
                Claim(
                    f"{name} {layer} {method}: pytorch-grad-cam / camfuse",
                    pair.ratio,
                    ">= 2.4",
                    {
                        "ours_ms": 1e3 * pair.ours,
                        "theirs_ms": 1e3 * pair.theirs,
                        "lowest": pair.low,
                        "highest": pair.high,
                    },
                )
            )
            print(claims[-1].name, {k: round(v, 2) for k, v in claims[-1].detail.items()})
    report("late_layer", claims)


def _check_same(ours: torch.Tensor, theirs: np.ndarray) -> None:
    low, high = ours.amin((1, 2), keepdim=True), ours.amax((1, 2), keepdim=True)
    np.testing.assert_allclose(((ours - low) / (high - low)).numpy(), theirs, atol=1e-4)


if __name__ == "__main__":
    main("--quick" in sys.argv)
