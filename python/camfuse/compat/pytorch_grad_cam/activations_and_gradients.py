"""What target layers return, and the gradients of a score with respect to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camfuse.compat.taps import Tap, Taps
from camfuse.preserve import (
    borrowed_buffers,
    eager,
    evaluating,
    frozen,
    one_at_a_time,
    plain_attention,
    random_state,
    state_tensors,
)


class ActivationsAndGradients:
    """Calls a model, and knows what its target layers returned.

    The model is hooked, in eval mode and without gradients of its parameters during a call alone,
    and is then as it was before. Activations are what a layer returned, also where a later module
    overwrites it. A layer that is called several times counts by its first call.

    Args:
        model: The model.
        target_layers: Some of its modules.
        reshape_transform: From a layer's output to ``[B, C, *grid]``, and from its gradient.
        detach: Whether activations and gradients are cut off from the graph.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None,
        detach: bool = True,
    ) -> None:
        self.model = model
        self.reshape_transform = reshape_transform
        self.detach = detach
        self._layers = tuple(target_layers)
        # Whoever wants the graph gets the layer's own tensors, to differentiate with respect to.
        self._taps = Taps(target_layers, reshape_transform if detach else None, attached=not detach)

    def __call__(self, x: Any) -> Any:
        """The model's output for ``x``, attached to a graph that begins at the target layers."""
        modules = tuple(self.model.modules())
        devices = {one.device for one in state_tensors(modules)}
        with (
            one_at_a_time,
            torch.inference_mode(False),
            plain_attention(modules, twice=not self.detach),
            random_state(devices),
            eager(modules),
            evaluating(modules),
            frozen(modules),
            borrowed_buffers(modules),
            self._taps.watching(),
        ):
            return self.model(x)

    @property
    def activations(self) -> list[Tensor]:
        """``[B, C, *grid]`` of each target layer, in their order; without those not executed."""
        return [tap.activation for tap in self._seen()]

    @property
    def gradients(self) -> list[Tensor]:
        """Likewise once a backward pass has been: 0 where no gradient has arrived."""
        taps = self._seen()
        if not any(tap.arrived for tap in taps):
            return []
        return [
            torch.zeros_like(tap.activation) if tap.gradient is None else tap.gradient
            for tap in taps
        ]

    def differentiate(self, score: Tensor, *also: Tensor) -> None:
        """Fills ``gradients``, those of a score, and ``grad`` of the leaves ``also``.

        Parameters get none.

        Raises:
            ValueError: If the score depends on no target layer.
        """
        self._taps.differentiate(score, *also)

    def gradients_of(self, layer: nn.Module) -> list[Tensor]:
        """Those of each call of a target layer that one has arrived at."""
        taps = self._taps.calls.get(layer, [])
        return [tap.gradient for tap in taps if tap.gradient is not None]

    def let_go(self) -> None:
        """Cuts activations and gradients off the graph."""
        self._taps.let_go()

    def clear(self) -> None:
        """Forgets activations and gradients."""
        self._taps.clear()

    def release(self) -> None:
        """The same: no hook outlives a call."""
        self.clear()

    def _seen(self) -> list[Tap]:
        calls = [self._taps.calls.get(layer) for layer in self._layers]
        return [taps[0] for taps in calls if taps]
