"""Grad-CAM++ from derivatives that are averaged over noisy copies of the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from camfuse.compat.taps import Taps
from camfuse.compat.torchcam.methods._given import Given
from camfuse.compat.torchcam.methods._gradcam import _GradCAM, total_score
from camfuse.compat.torchcam.methods._noise import callers_noise
from camfuse.compat.torchcam.methods._targets import ClassIdx, Targets
from camfuse.compat.torchcam.methods._utils import untouched
from camfuse.compat.torchcam.methods.core import TargetLayer
from camfuse.layouts import plane
from camfuse.methods.base import wide


class SmoothGradCAMpp(_GradCAM):
    """Smooth Grad-CAM++ (Omeiza et al., 2019, arXiv 1908.01224).

    With D_n the mean over noisy passes of the n-th power of the gradient, and A of the caller's
    pass, a channel weighs ``sum_p max(D_1, 0) D_2 / (2 D_2 + D_3 sum_p A + eps)``. The noise is
    drawn from torch's generator of the CPU. The caller's pass needs no gradients, and the model is
    left as it was.

    Args:
        model: Any module.
        target_layer: As for the base class.
        num_samples: How many noisy passes there are.
        std: Standard deviation of the noise, in units of the model's input.
        input_shape: As for the base class.
        kwargs: ``enable_hooks`` and ``reshape_transform``, as for the base class.
    """

    _gradients = False  # those of the caller's pass

    def __init__(
        self,
        model: nn.Module,
        target_layer: TargetLayer = None,
        num_samples: int = 4,
        std: float = 0.3,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        super().__init__(model, target_layer, input_shape, **kwargs)
        self._score_used = False
        self.num_samples, self.std = num_samples, std
        self._given: Given | None = None

    def _keep(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._given = Given(args, kwargs)

    def _get_weights(
        self,
        class_idx: Any,
        scores: Any = None,
        eps: float = 1e-8,
        *,
        targets: Targets | None = None,
        retain_graph: bool = False,
    ) -> list[Tensor]:
        sums = [wide(A).new_zeros(3, *A.shape) for A in self.hook_a]
        with callers_noise() as noise:
            for _ in range(self.num_samples):
                gradients = self._noisy_gradients(noise, class_idx, targets)
                for total, G in zip(sums, gradients, strict=True):
                    g = wide(G)
                    total[0] += g
                    total[1] += g.square()
                    total[2] += g**3
        return [
            _weigh(total / self.num_samples, A, eps).to(A.dtype)
            for total, A in zip(sums, self.hook_a, strict=True)
        ]

    def _noisy_gradients(
        self, noise: Any, class_idx: ClassIdx | None, targets: Targets | None
    ) -> list[Tensor]:
        """Gradients at all layers of one noisy pass."""
        if self._given is None:
            raise ValueError("expected a forward pass of the model itself, saw one of its layers")
        image = self._given.image
        noisy = image + (self.std * noise(image.shape)).to(image)
        args, kwargs = self._given.with_image(noisy)
        layers = [self.submodule_dict[name] for name in self.target_names]
        taps = Taps(layers, self._watch.reshape)
        with (
            self._hooks_off(),
            untouched(self.model, frozen_too=True),
            torch.enable_grad(),
            taps.watching(),
        ):
            score = total_score(self.model(*args, **kwargs), class_idx, targets)
            taps.differentiate(score)
        found = []
        for name, layer in zip(self.target_names, layers, strict=True):
            gradient = taps.calls[layer][-1].gradient
            if gradient is None:
                raise RuntimeError(f"target_layer: the scores do not depend on {name!r}")
            found.append(gradient)
        taps.clear()
        return found

    def _extra_repr(self) -> str:
        return f"{super()._extra_repr()}, num_samples={self.num_samples}, std={self.std}"


def _weigh(means: Tensor, A: Tensor, eps: float) -> Tensor:
    """``[B, C]``, of the derivatives' means ``[3, B, C, *grid]``."""
    first, second, third = map(plane, means)
    total = plane(wide(A)).sum((2, 3), keepdim=True)
    parts = second / (2 * second + third * total + eps)
    parts = torch.where(second == 0, torch.zeros_like(parts), parts)
    weights: Tensor = (first.clamp(min=0) * parts).sum((2, 3))
    return weights
