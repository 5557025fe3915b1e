"""One late layer's map against pytorch-grad-cam 1.5.7, on the same model, layer and images.

pytorch-grad-cam normalizes a map once at layer resolution and once more after upsampling; the check
that both sides compute the same thing applies that second normalization to camfuse's maps. No layer
is taken that a later module overwrites in place: pytorch-grad-cam would see what was written.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from pytorch_grad_cam import GradCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

import camfuse
from benchmarks.harness import Claim, compare
from benchmarks.models import MODELS, build, image

BATCH = 4
LAYERS = {
    "resnet50": "layer4.2",
    "resnet152": "layer4.2",
    "densenet161": "features.denseblock4",
    "vgg19": "features",
    "convnext_tiny": "features",
    "efficientnet-lite0": "_blocks.15",
    "vit_b_16": "encoder.layers.encoder_layer_11.ln_1",
}
METHODS = {"gradcam": GradCAM, "layercam": LayerCAM}


def run(quick: bool) -> list[Claim]:
    """A claim per model and method."""
    claims = []
    for name in MODELS[:1] if quick else MODELS:
        for method, peer in METHODS.items():
            layer = LAYERS[name]
            model, x = build(name), image(BATCH)
            model.requires_grad_(True)  # pytorch-grad-cam needs it
            with torch.no_grad():
                classes = model(x).argmax(1).tolist()
            reshape = fold_tokens if name == "vit_b_16" else None
            with peer(model, [model.get_submodule(layer)], reshape_transform=reshape) as cam:
                targets = [ClassifierOutputTarget(one) for one in classes]
                theirs = partial(cam, x, targets)
                ours = partial(camfuse.cam, model, x, layer, method=method)
                check_same(ours(), theirs())
                pair = compare(ours, theirs, quick=quick, seconds=0.2)
            case = f"{name} {layer} {method}, batch {BATCH}"
            claims.append(
                Claim(
                    "pytorch-grad-cam / one late layer", case, pair.ratio, ">= 2.4", pair.detail()
                )
            )
            print(f"{case}: {pair.ratio:.2f}", flush=True)
    return claims


def fold_tokens(x: Tensor) -> Tensor:
    """Of ``[B, 1 + 14 * 14, C]`` tokens the image ``[B, C, 14, 14]``, without the class token."""
    return x[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)


def check_same(ours: Tensor, theirs: np.ndarray) -> None:
    """Raises unless both are the same maps ``[B, H, W]``."""
    low, high = ours.amin((1, 2), keepdim=True), ours.amax((1, 2), keepdim=True)
    np.testing.assert_allclose(((ours - low) / (high - low)).numpy(), theirs, atol=1e-4)
