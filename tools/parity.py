"""How far camfuse's raw maps lie from those of other libraries: ``python tools/parity.py [small]``.

Every method that a peer has, on seven architectures, batches of 1 and 3; writes docs/parity.md.
"""

from __future__ import annotations

import functools
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision.models as tv
from peers import PEERS, Fold, Peer
from rich.progress import track
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig

import camfuse
from camfuse.methods import METHODS
from camfuse.methods.base import PassMethod

PAGE = Path(__file__).parents[1] / "docs" / "parity.md"


def image(tensor: Tensor) -> Tensor:
    """``[B, C, h, w]`` as it is."""
    return tensor


def channels_last(tensor: Tensor) -> Tensor:
    """From ``[B, h, w, C]``."""
    return tensor.permute(0, 3, 1, 2)


def tokens(tensor: Tensor) -> Tensor:
    """From a class token and a square of tokens, ``[B, 1 + N, C]``."""
    side = round((tensor.shape[1] - 1) ** 0.5)
    return tensor[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Subject:
    """An architecture, and one layer of it that no later module overwrites.

    Attributes:
        small: Makes a narrow one, for images of 64 x 64.
        full: Makes the one that people use, for images of 224 x 224.
        layer: Of the narrow one.
        full_layer: Of the other.
        fold: How the layer's output becomes ``[B, C, h, w]``.
        behind_relu: Whether activations there are not negative.
    """

    small: Callable[[], nn.Module]
    full: Callable[[], nn.Module]
    layer: str
    full_layer: str
    fold: Fold = image
    behind_relu: bool = False


def _vgg(widths: list[int | str]) -> nn.Module:
    model = tv.VGG(tv.vgg.make_layers(widths), num_classes=10, init_weights=False)
    model.avgpool, model.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(int(widths[-2]), 10)
    return model


SUBJECTS = {
    "ResNet": Subject(
        lambda: tv.ResNet(tv.resnet.BasicBlock, [1, 1, 1, 1], num_classes=10),
        tv.resnet50,
        "layer1",
        "layer4",
        behind_relu=True,
    ),
    "VGG": Subject(
        lambda: _vgg([8, "M", 16, "M", 16, "M"]),
        tv.vgg16_bn,
        "features.8",
        "features.43",
        behind_relu=True,
    ),
    "DenseNet": Subject(
        lambda: tv.DenseNet(8, (2, 2, 2), 16, num_classes=10),
        tv.densenet121,
        "features.denseblock2",
        "features.denseblock4",
    ),
    "ConvNeXt": Subject(
        lambda: tv.ConvNeXt([CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 2)], num_classes=10),
        tv.convnext_tiny,
        "features.3",
        "features.7",
    ),
    "MobileNetV3": Subject(
        lambda: tv.mobilenet_v3_small(num_classes=10),
        tv.mobilenet_v3_large,
        "features.5",
        "features.15",
    ),
    "ViT": Subject(
        lambda: tv.VisionTransformer(64, 8, 2, 2, 32, 64, num_classes=10),
        tv.vit_b_16,
        "encoder.layers.encoder_layer_1.ln_1",
        "encoder.layers.encoder_layer_11.ln_1",
        tokens,
    ),
    "Swin": Subject(
        lambda: tv.SwinTransformer([4, 4], 16, [2, 2], [2, 2], [4, 4], num_classes=10),
        tv.swin_t,
        "features.3.1.mlp",  # not a stage, whose LayerNorm makes products cancel
        "features.7.1.mlp",
        channels_last,
    ),
}


@functools.cache
def subject(name: str, size: str) -> tuple[nn.Module, str]:
    """A model with random weights, and the name of its layer; nothing in it overwrites anything."""
    one = SUBJECTS[name]
    torch.manual_seed(0)
    model = (one.small if size == "small" else one.full)().eval()
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
        if isinstance(module, nn.BatchNorm2d):  # as if trained: no two channels alike
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.Linear) and module is getattr(model, "heads", [None])[-1]:
            nn.init.normal_(module.weight, std=0.1)  # a ViT's begins at 0
    return model, one.layer if size == "small" else one.full_layer


def deviation(
    method: str, peer: Peer, name: str, size: str = "small", batch: int = 2
) -> float | None:
    """Largest difference of the raw maps, in units of the peer's largest magnitude.

    None where the peer does not take such layers.
    """
    fold = SUBJECTS[name].fold
    if fold is not image and not peer.tokens:
        return None
    if peer.behind_relu and not SUBJECTS[name].behind_relu:
        return None
    model, layer = subject(name, size)
    side = 64 if size == "small" else 224
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 3, side, side, generator=generator)
    classes = [3 * i % 10 for i in range(batch)]
    ours = camfuse.layer_cams(model, x, method=method, layers=layer, target=classes)[layer]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peer.raw(model, model.get_submodule(layer), x, classes, fold).to(ours)
    if peer.rectified:
        ours, theirs = ours.clamp(min=0), theirs.clamp(min=0)
    if peer.any_sign:
        turned = (ours * theirs).sum((1, 2), keepdim=True).sign()
        theirs = theirs * turned
    largest = theirs.abs().amax((1, 2)).clamp(min=1e-12)
    return float(((ours - theirs).abs().amax((1, 2)) / largest).max())


def pairs() -> Iterator[tuple[str, Peer]]:
    """Every method with every peer that has it."""
    for method, peers in PEERS.items():
        for peer in peers:
            yield method, peer


RECORDED = {
    "full": "ResNet-50, VGG-16 with batch normalisation, DenseNet-121, ConvNeXt-Tiny, "
    "MobileNetV3-Large, ViT-B/16 and Swin-T at 224 x 224, their last stages; for the methods that "
    "take a pass for every channel, narrow ones at 64 x 64.",
    "small": "Narrow networks of each kind at 64 x 64.",
}


def main(grid: str) -> None:
    """Runs a grid, ``full`` or ``small``, and writes the page."""
    lines = [
        f"Recorded: {RECORDED[grid]}",
        "",
        f"| method | library | {' | '.join(SUBJECTS)} |",
        f"| --- | --- | {' | '.join('---:' for _ in SUBJECTS)} |",
    ]
    for method, peer in track(list(pairs()), "parity"):
        # Methods that perturb take a pass for every channel: they get the narrow models.
        size = "small" if isinstance(METHODS[method], PassMethod) else grid
        cells = []
        for name in SUBJECTS:
            try:
                found = [deviation(method, peer, name, size, batch) for batch in (1, 3)]
            except ValueError:  # as where torch has no second derivative
                found = []
            known = [one for one in found if one is not None]
            cells.append(f"{max(known):.0e}" if known else "")
        lines.append(f"| `{method}` | {peer.library} | {' | '.join(cells)} |")
    text = PAGE.read_text(encoding="utf-8")
    table = "\n".join(["<!-- parity -->", *lines, "", "<!-- end of parity -->"])
    text = re.sub(r"<!-- parity -->.*<!-- end of parity -->", lambda _: table, text, flags=re.S)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main("small" if sys.argv[1:] == ["small"] else "full")
