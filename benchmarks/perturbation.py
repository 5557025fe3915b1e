"""Score-CAM and Ablation-CAM of one layer against pytorch-grad-cam 1.5.7, on a photograph.

Both sides get the same model, layer, class and batch size, and their maps are compared first.
pytorch-grad-cam upsamples Score-CAM's masks with aligned corners and normalizes them afterwards; to
time equal work on equal masks, it is given camfuse's masks here. Images are 31 times as large as
the last layer, so that masks reach 0 and 1 in pixels and normalising them again changes nothing.
Its Ablation-CAM replaces channels of layers with negative values by -1e7 instead of 0, so layers
behind a ReLU are measured. ResNets have random weights, which leave no channel silent;
EfficientNet-Lite0 has its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np
import pytorch_grad_cam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.harness import Claim, compare
from benchmarks.models import build
from benchmarks.photographs import cat
from camfuse.ablation import ablationcam
from camfuse.masking import scorecam
from camfuse.perturbation import Perturbation, Site, Weighted

BATCH_SIZE = 16
# Method, model, layer and image size.
QUICK = [("scorecam", "resnet18", "layer4", 62), ("ablationcam", "resnet18", "layer4", 62)]
CASES = [
    ("scorecam", "resnet34", "layer4.2", 93),
    ("ablationcam", "resnet34", "layer4.2", 93),
    ("scorecam", "efficientnet-lite0", "_blocks.14", 185),
    ("ablationcam", "resnet50", "layer3.5", 93),
]
OURS: dict[str, Callable[[Perturbation, Site], Weighted]] = {
    "scorecam": scorecam,
    "ablationcam": ablationcam,
}


class HalfPixelMasks(nn.Module):
    """Upsamples normalized channels as camfuse does."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, A: Tensor) -> Tensor:
        low, high = A.amin((2, 3), keepdim=True), A.amax((2, 3), keepdim=True)
        masks = (A - low) / (high - low).clamp(min=1e-12)
        return F.interpolate(masks, self.size, mode="bilinear", align_corners=False)


def run(quick: bool) -> list[Claim]:
    """A claim per method, model and layer."""
    claims = []
    print(f"one image, up to {BATCH_SIZE} copies at once")
    for method, name, layer, size in QUICK if quick else CASES:
        model, x = build(name), cat(size)
        site = Site(model.get_submodule(layer))
        category = int(model(x).argmax())

        def ours(
            method: str = method,
            model: nn.Module = model,
            x: Tensor = x,
            site: Site = site,
            category: int = category,
        ) -> Weighted:
            return OURS[method](Perturbation(model, x, category, batch_size=BATCH_SIZE), site)

        with _peer(method, model, site.module, size) as peer:
            target = [ClassifierOutputTarget(category)]

            def theirs(
                peer: pytorch_grad_cam.base_cam.BaseCAM = peer,
                x: Tensor = x,
                target: list[ClassifierOutputTarget] = target,
            ) -> np.ndarray:
                return peer(x, target)

            found = ours()
            _check_same(found.maps()[0], theirs())
            pair = compare(ours, theirs, quick=quick, seconds=0)
        channels = found.activations.shape[1]
        case = f"{name} {layer}, {channels} channels, {size} px"
        claims.append(
            Claim(f"pytorch-grad-cam / {method}", case, pair.ratio, ">= 2", pair.detail())
        )
        print(f"{method} {case}: {pair.ratio:.2f}", flush=True)
        print(f"  plain passes because: {found.refusals}" if found.refusals else "", flush=True)
    return claims


@contextlib.contextmanager
def _peer(
    method: str, model: nn.Module, layer: nn.Module, size: int
) -> Iterator[pytorch_grad_cam.base_cam.BaseCAM]:
    """The other side, without its progress bar."""
    kind = {"scorecam": pytorch_grad_cam.ScoreCAM, "ablationcam": pytorch_grad_cam.AblationCAM}
    masks = HalfPixelMasks((size, size))
    with (
        mock.patch("tqdm.tqdm", lambda steps: steps),
        mock.patch("torch.nn.UpsamplingBilinear2d", return_value=masks),
        kind[method](model, [layer]) as peer,
    ):
        peer.batch_size = BATCH_SIZE
        yield peer


def _check_same(ours: Tensor, theirs: np.ndarray) -> None:
    """pytorch-grad-cam normalizes at the layer's resolution and once more after upsampling."""
    upsampled = F.interpolate(
        _normalized(ours.relu())[None], theirs.shape[1:], mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(_normalized(upsampled[0]).numpy(), theirs, atol=1e-4)


def _normalized(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-12)
