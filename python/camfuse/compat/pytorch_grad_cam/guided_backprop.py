"""Guided backpropagation: the gradient of the image, where ReLUs pass on what is positive alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.arrays import Array, as_array
from camfuse.intercept import Forward, intercepted
from camfuse.preserve import (
    borrowed_buffers,
    eager,
    evaluating,
    frozen,
    plain_attention,
    random_state,
    state_tensors,
)


class GuidedBackpropReLU(torch.autograd.Function):
    """A ReLU whose gradient is rectified, too."""

    @staticmethod
    def forward(ctx: Any, input_img: Tensor) -> Tensor:
        """``max(x, 0)``."""
        ctx.save_for_backward(input_img)
        return input_img.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        """The gradient where it and the input are positive, else 0."""
        (gradient,) = grad_outputs
        (x,) = ctx.saved_tensors
        guided: Tensor = gradient.clamp(min=0) * (x > 0)
        return guided


class GuidedBackpropReLUasModule(nn.Module):
    """The same as a module."""

    def forward(self, input_img: Tensor) -> Tensor:
        """``max(x, 0)``."""
        found: Tensor = GuidedBackpropReLU.apply(input_img)
        return found


class GuidedBackpropReLUModel:
    """Guided backpropagation (Springenberg et al., 2015) through a model's ReLU modules.

    The model is in eval mode during calls alone, and otherwise left as it is.

    Args:
        model: The model. ReLUs that are mere functions stay what they are.
        device: Where it is moved to, if given.
    """

    def __init__(self, model: nn.Module, device: torch.device | str | None = None) -> None:
        self.model = model if device is None else model.to(device)
        found = next((one.device for one in model.parameters()), torch.device("cpu"))
        self.device = found if device is None else torch.device(device)

    def forward(self, input_img: Tensor) -> Any:
        """What the model returns."""
        return self.model(input_img)

    def __call__(self, input_img: Tensor, target_category: int | None = None) -> Array:
        """The guided gradient of the first image.

        Args:
            input_img: ``[1, C, H, W]``; more images are not explained.
            target_category: The class; that of the highest output by default.

        Returns:
            ``[H, W, C]``, f32 for models of up to 32 bits.
        """
        modules = tuple(self.model.modules())
        guided = GuidedBackpropReLUasModule()

        def answer(module: nn.Module, forward: Forward) -> Forward:
            return guided.forward if isinstance(module, nn.ReLU) else forward

        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            plain_attention(modules),
            random_state({one.device for one in state_tensors(modules)}),
            eager(modules),
            evaluating(modules),
            frozen(modules),
            borrowed_buffers(modules),
            intercepted(modules, answer),
        ):
            x = input_img.to(self.device).detach().clone().requires_grad_()
            output = self.forward(x)[0]
            chosen = output.argmax() if target_category is None else target_category
            (gradient,) = torch.autograd.grad(output[chosen], x)
        found: Array = as_array(gradient[0].movedim(0, -1))
        return found
