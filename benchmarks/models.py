"""The networks that are measured, and the least work that any all-layer method must do on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn

from camfuse.attention_rows import rows_together
from camfuse.layers import select_layers
from camfuse.models import load_model

# Those of every benchmark that is about models, and the batch sizes.
MODELS = (
    "resnet50",
    "resnet152",
    "densenet161",
    "vgg19",
    "convnext_tiny",
    "efficientnet-lite0",
    "vit_b_16",
)
BATCHES = (1, 8)


def build(name: str) -> nn.Module:
    """A torchvision classifier with random weights, or EfficientNet-Lite0 with its own; eval."""
    torch.manual_seed(0)
    if name == "efficientnet-lite0":
        return load_model("efficientnet-lite:0").module.requires_grad_(False)
    model: nn.Module = getattr(torchvision.models, name)(weights=None)
    if name == "vit_b_16":  # its last layer begins as 0, and so would all gradients be
        nn.init.normal_(model.heads.head.weight, std=0.02)
    return model.eval().requires_grad_(False)


def image(batch: int, size: int = 224) -> Tensor:
    """Random input, by default of ImageNet's usual size."""
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def bare_passes(model: nn.Module, x: Tensor) -> None:
    """Forward, and backward to the first layer's output; no hooks.

    Frozen attention multiplies its rows together, here as in camfuse; left to torch, it would take
    several times as long and flatter whoever is held against it.
    """
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    roots: list[Tensor] = []

    def begin(module: nn.Module, args: object, output: Tensor) -> Tensor:
        roots.append(output.detach().requires_grad_())
        return roots[0].clone()

    handle = first.register_forward_hook(begin)
    try:
        with rows_together(list(model.modules())):
            score = model(x).amax(1).sum()
    finally:
        handle.remove()
    torch.autograd.grad(score, roots)


Call = tuple[nn.Module, int]
"""A module, and how often it had been called before in this pass."""


def read(call: Call, activation: Tensor, gradient: Tensor) -> None:
    """One read of each: the least that any method does with them."""
    activation.sum()
    gradient.sum()


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
        self.names = select_layers(self.model, self.layers).names
        self.overwritten: set[Call] = set()
        versions: list[tuple[Call, Tensor, int]] = []
        self._pass(image(1), lambda call, out: versions.append((call, out.detach(), out._version)))
        self.overwritten = {call for call, out, version in versions if out._version != version}

    def __call__(self, x: Tensor, use: Callable[[Call, Tensor, Tensor], None] = read) -> None:
        """One pass; ``use`` is handed each activation with its gradient."""
        self._pass(x, lambda call, out: None, use)

    def name(self, call: Call) -> str:
        """What camfuse calls the layer."""
        module, times = call
        return self.names[module] + (f"#{times + 1}" if times else "")

    def _pass(
        self,
        x: Tensor,
        see: Callable[[Call, Tensor], None],
        use: Callable[[Call, Tensor, Tensor], None] = read,
    ) -> None:
        roots: list[Tensor] = []
        calls: dict[nn.Module, int] = {}
        seen: set[object] = set()

        def forward(module: nn.Module, args: object, output: object) -> Tensor | None:
            call = module, calls.get(module, 0)
            calls[module] = call[1] + 1
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
            see(call, output)
            activation = output.detach()
            if call in self.overwritten:
                activation = activation.clone()
            output.register_hook(lambda gradient: use(call, activation, gradient))
            return returned

        handles = [module.register_forward_hook(forward) for module in self.names]
        try:
            with rows_together(list(self.model.modules())):
                score = self.model(x).amax(1).sum()
        finally:
            for handle in handles:
                handle.remove()
        torch.autograd.grad(score, roots, allow_unused=True)
