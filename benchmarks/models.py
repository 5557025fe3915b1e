"""The networks that are measured, and the least work that any all-layer method must do on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn

from camfuse.layers import select_layers
from camfuse.models import load_model


def build(name: str) -> nn.Module:
    """A torchvision classifier with random weights, or EfficientNet-Lite0 with its own; eval."""
    torch.manual_seed(0)
    if name == "efficientnet-lite0":
        return load_model("efficientnet-lite:0").module.requires_grad_(False)
    return getattr(torchvision.models, name)(weights=None).eval().requires_grad_(False)


def image(batch: int) -> Tensor:
    """Random input of ImageNet's usual size."""
    return torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def bare_passes(model: nn.Module, x: Tensor) -> None:
    """Forward, and backward to the first layer's output; no hooks."""
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    roots: list[Tensor] = []

    def begin(module: nn.Module, args: object, output: Tensor) -> Tensor:
        roots.append(output.detach().requires_grad_())
        return roots[0].clone()

    handle = first.register_forward_hook(begin)
    try:
        score = model(x).amax(1).sum()
    finally:
        handle.remove()
    torch.autograd.grad(score, roots)


@dataclass
class Floor:
    """Bare passes, plus what no all-layer method can avoid.

    Hooks on every selected layer, a copy of each activation that a later module overwrites, and one
    read of each activation and gradient (a ``sum``).
    """

    model: nn.Module
    layers: str

    def __post_init__(self) -> None:
        """Finds out which activations are overwritten."""
        self.modules = list(select_layers(self.model, self.layers).names)
        self.overwritten: set[tuple[nn.Module, int]] = set()
        versions: list[tuple[tuple[nn.Module, int], Tensor, int]] = []
        self._pass(image(1), lambda key, out: versions.append((key, out.detach(), out._version)))
        self.overwritten = {key for key, out, version in versions if out._version != version}

    def __call__(self, x: Tensor) -> None:
        """One pass."""
        self._pass(x, lambda key, out: None)

    def _pass(self, x: Tensor, see: Callable[[tuple[nn.Module, int], Tensor], None]) -> None:
        roots: list[Tensor] = []
        calls: dict[nn.Module, int] = {}
        seen: set[object] = set()

        def forward(module: nn.Module, args: object, output: object) -> Tensor | None:
            key = module, calls.get(module, 0)
            calls[module] = key[1] + 1
            if not isinstance(output, Tensor) or output.ndim < 3:
                return None
            returned = output
            if not output.requires_grad:
                output = output.detach().requires_grad_()
                roots.append(output)
                returned = output.clone()
            elif output._is_view():
                returned = output.clone()
            edge = torch.autograd.graph.get_gradient_edge(output)
            if (edge.node, edge.output_nr, output._version) in seen:
                return None
            seen.add((edge.node, edge.output_nr, output._version))
            see(key, output)
            activation = output.detach()
            if key in self.overwritten:
                activation = activation.clone()

            def backward(gradient: Tensor) -> None:
                activation.sum()
                gradient.sum()

            output.register_hook(backward)
            return returned

        handles = [module.register_forward_hook(forward) for module in self.modules]
        try:
            score = self.model(x).amax(1).sum()
        finally:
            for handle in handles:
                handle.remove()
        torch.autograd.grad(score, roots, allow_unused=True)
