"""Shared by the tests of pytorch-grad-cam's face: subjects, and the same call of either library."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytorch_grad_cam as peer
import torch
from parity import SUBJECTS, image, subject
from torch import nn

import camfuse.compat.pytorch_grad_cam as ours

# A second layer of each architecture, and whether it is executed before the first.
SECOND = {
    "ResNet": ("layer2", False),
    "VGG": ("features.4", True),
    "DenseNet": ("features.transition1", True),
    "ConvNeXt": ("features.2", True),  # not a stage, whose LayerNorm makes products cancel
    "MobileNetV3": ("features.3", True),
    "ViT": ("encoder.layers.encoder_layer_0.ln_1", True),
    "Swin": ("features.1.1.mlp", True),
}
CHANNELS_LAST = ("ViT", "Swin")
LIBRARIES = {"peer": peer, "ours": ours}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, warnings or prints of the peer's."""
    with (
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def forget(cam: Any) -> None:
    """Empties the peer's lists, which would fail to detach views and leave hooks on the model."""
    inner = getattr(getattr(cam, "base_cam", cam), "activations_and_grads", None)
    if isinstance(inner, peer.ActivationsAndGradients) and not inner.detach:
        inner.activations, inner.gradients = [], []


def classes(library: ModuleType, count: int) -> list[Any]:
    """A target for each image, another class each."""
    made = library.utils.model_targets.ClassifierOutputTarget
    return [made(3 * i % 10) for i in range(count)]


@dataclass(frozen=True)
class Case:
    """An architecture, how many images, and how many target layers."""

    name: str
    batch: int = 3
    layers: int = 2

    def __str__(self) -> str:
        return f"{self.name}-{self.batch}x{self.layers}"

    @property
    def model(self) -> nn.Module:
        return subject(self.name, "small")[0]

    @property
    def target_layers(self) -> list[nn.Module]:
        names = [subject(self.name, "small")[1]]
        if self.layers == 2:
            second, before = SECOND[self.name]
            names.insert(0 if before else 1, second)
        return [self.model.get_submodule(name) for name in names]

    @property
    def x(self) -> torch.Tensor:
        return torch.randn(self.batch, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    @property
    def fold(self) -> Any:
        fold = SUBJECTS[self.name].fold
        return None if fold is image else fold

    def cam(self, library: ModuleType, method: str, **options: Any) -> Any:
        """The method of a library for this case."""
        if method == "AblationCAM" and self.name in CHANNELS_LAST:
            options = {"ablation_layer": library.AblationLayerVit(), **options}
        layers = [] if method == "FullGrad" else self.target_layers
        fold = None if method == "FullGrad" else self.fold
        return getattr(library, method)(self.model, layers, reshape_transform=fold, **options)

    def call(self, library: ModuleType, cam: Any, **arguments: Any) -> np.ndarray:
        """Its maps of the case's images."""
        np.random.seed(0)
        try:
            with quiet():
                return cam(self.x, classes(library, self.batch), **arguments)
        finally:
            forget(cam)
