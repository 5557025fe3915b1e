"""An independent computation of activations and gradients, with nothing of camfuse in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor | None]


def autograd_pairs(
    model: nn.Module,
    x: Tensor,
    score: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Pair]:
    """Output and gradient of every module call, from `torch.autograd.grad` in one plain pass.

    Each module's output is recorded and its clone flows on, so that nothing recorded can be
    overwritten; A and G are taken at the recorded tensor. By name, `name#2` for a second call. Of
    what attention returns, a tuple of one tensor and nothing else, it is the tensor.
    """
    recorded: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()

    def recorder(name: str):
        def hook(module: nn.Module, args: object, output: object) -> object:
            if isinstance(output, tuple) and output[1:] == (None,):
                return (hook(module, args, output[0]), None)
            if not isinstance(output, Tensor) or not output.is_floating_point():
                return None
            calls[name] += 1
            recorded[name if calls[name] == 1 else f"{name}#{calls[name]}"] = output
            return output.clone()

        return hook

    handles = [
        module.register_forward_hook(recorder(name))
        for name, module in model.named_modules()
        if name
    ]
    try:
        output = model(x.clone().requires_grad_().clone())
    finally:
        for handle in handles:
            handle.remove()
    if score is None:  # not amax(), which shares its gradient among equal scores
        total = output.gather(1, output.argmax(1, keepdim=True)).sum()
    else:
        total = score(output).sum()
    names = [name for name, tensor in recorded.items() if tensor.requires_grad]
    gradients = torch.autograd.grad(total, [recorded[name] for name in names], allow_unused=True)
    found = dict(zip(names, gradients, strict=True))
    return {name: (tensor.detach(), found.get(name)) for name, tensor in recorded.items()}


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected magnitude."""
    difference = (got.double() - expected.double()).abs().max()
    return float(difference / expected.double().abs().max().clamp(min=1e-300))
