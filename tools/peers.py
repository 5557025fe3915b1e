"""The raw maps of other libraries: what their methods make before they rectify and normalise.

Each function here takes a model, one of its layers, images ``[B, 3, H, W]``, a class per image and
how the layer's output is folded to ``[B, C, h, w]``, and returns maps ``[B, h, w]``.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import captum.attr
import numpy as np
import pytorch_grad_cam as pgc
import torch
import torchcam.methods as tcm
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

Fold = Callable[[Tensor], Tensor]
RawMaps = Callable[[nn.Module, nn.Module, Tensor, Sequence[int], Fold], Tensor]


@dataclass(frozen=True)
class Peer:
    """A method of another library.

    Attributes:
        library: Its name.
        raw: Makes the maps.
        rectified: Whether the maps have no negative values.
        any_sign: Whether the sign of a map is arbitrary there.
        tokens: Whether it takes layers that carry tokens.
        behind_relu: Whether it means the same only for layers without negative activations.
    """

    library: str
    raw: RawMaps
    rectified: bool = False
    any_sign: bool = False
    tokens: bool = True
    behind_relu: bool = False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def pytorch_grad_cam(kind: type, **options: Any) -> RawMaps:
    """Of pytorch-grad-cam: what ``get_cam_image`` returns to the rest of it."""

    def raw(
        model: nn.Module, layer: nn.Module, x: Tensor, classes: Sequence[int], fold: Fold
    ) -> Tensor:
        made: list[np.ndarray] = []
        with _quiet(), kind(model, [layer], reshape_transform=fold, **options) as cam:
            original = cam.get_cam_image

            def spy(*args: Any) -> np.ndarray:
                made.append(original(*args))
                return made[-1]

            cam.get_cam_image = spy
            cam(x, [ClassifierOutputTarget(one) for one in classes])
        (maps,) = made
        return torch.as_tensor(np.asarray(maps))

    return raw


def torchcam(kind: type, **options: Any) -> RawMaps:
    """Of torchcam, which rectifies but need not normalise."""

    def raw(
        model: nn.Module, layer: nn.Module, x: Tensor, classes: Sequence[int], fold: Fold
    ) -> Tensor:
        shape = tuple(x.shape[1:])
        with kind(model, layer, input_shape=shape, reshape_transform=fold, **options) as extractor:
            scores = model(x.clone().requires_grad_())
            (maps,) = extractor(list(classes), scores, normalized=False)
        return maps.detach()

    return raw


def captum_grad_cam(
    model: nn.Module, layer: nn.Module, x: Tensor, classes: Sequence[int], fold: Fold
) -> Tensor:
    """Of captum's LayerGradCam, whose sums run over the axes of an image only."""
    attributions = captum.attr.LayerGradCam(model, layer).attribute(x, target=list(classes))
    return attributions[:, 0].detach()


PEERS: dict[str, list[Peer]] = {
    "gradcam": [
        Peer("pytorch-grad-cam", pytorch_grad_cam(pgc.GradCAM)),
        Peer("torchcam", torchcam(tcm.GradCAM), rectified=True),
        Peer("captum", captum_grad_cam, tokens=False),
    ],
    # torchcam divides a copy of its weights, and so not at all.
    "gradcam++": [Peer("pytorch-grad-cam", pytorch_grad_cam(pgc.GradCAMPlusPlus))],
    "xgradcam": [
        Peer("pytorch-grad-cam", pytorch_grad_cam(pgc.XGradCAM)),
        Peer("torchcam", torchcam(tcm.XGradCAM), rectified=True),
    ],
    "hirescam": [Peer("pytorch-grad-cam", pytorch_grad_cam(pgc.HiResCAM))],
    "elementwise": [Peer("pytorch-grad-cam", pytorch_grad_cam(pgc.GradCAMElementWise))],
    "layercam": [
        Peer("pytorch-grad-cam", pytorch_grad_cam(pgc.LayerCAM)),
        Peer("torchcam", torchcam(tcm.LayerCAM), rectified=True),
    ],
    "eigencam": [Peer("pytorch-grad-cam", pytorch_grad_cam(pgc.EigenCAM), any_sign=True)],
    "eigengradcam": [Peer("pytorch-grad-cam", pytorch_grad_cam(pgc.EigenGradCAM), any_sign=True)],
    "segeigencam": [Peer("pytorch-grad-cam", pytorch_grad_cam(pgc.SegEigenCAM))],
    "fem": [Peer("pytorch-grad-cam", pytorch_grad_cam(pgc.FEM))],
    "kpcacam": [Peer("pytorch-grad-cam", pytorch_grad_cam(pgc.KPCA_CAM), any_sign=True)],
    "shapleycam": [Peer("pytorch-grad-cam", pytorch_grad_cam(pgc.ShapleyCAM), tokens=False)],
    "finercam": [Peer("torchcam", torchcam(tcm.FinerCAM, gamma=1.0), rectified=True)],
    # pytorch-grad-cam enlarges masks with aligned corners.
    "scorecam": [Peer("torchcam", torchcam(tcm.ScoreCAM), rectified=True)],
    "iscam": [Peer("torchcam", torchcam(tcm.ISCAM), rectified=True)],
    # Where activations may be negative, it sets channels to their minimum less 1e7 there.
    "ablationcam": [
        Peer("pytorch-grad-cam", pytorch_grad_cam(pgc.AblationCAM), behind_relu=True),
    ],
}
