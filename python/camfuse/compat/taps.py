"""Hooks for a forward pass that somebody else runs: what layers return, and its gradients.

:func:`camfuse.capture.capture` runs the passes itself. Other libraries let their users run them, so
their faces watch: activations are what a layer returned, whatever overwrites it later, and the
graph begins at the first watched layer if nothing before it requires grad.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from camfuse.roots import graft
from camfuse.structures import exchanged, tensors_in


@dataclass(eq=False)
class Tap:
    """One call of a layer.

    Attributes:
        activation: What the layer returned, reshaped ``[B, C, *grid]``; attached to the graph only
            where that was asked for.
        edge: Where its gradient arrives; None without a graph.
    """

    activation: Tensor
    edge: GradientEdge | None = None
    # Not a field of its own: the hook that fills it must not keep the edge, hence the graph, alive.
    arrived: list[Tensor] = field(default_factory=list)

    @property
    def gradient(self) -> Tensor | None:
        """The last gradient that arrived, shaped like the activation."""
        return self.arrived[0] if self.arrived else None


def leaf(output: Tensor) -> Tensor:
    """A root that nothing lies behind."""
    return output.detach().clone().requires_grad_()


class Taps:
    """What layers return in a forward pass, and the gradients that come back.

    Args:
        layers: The layers to watch.
        reshape: From their output to ``[B, C, *grid]``, applied to gradients too. Of an output that
            is no tensor it makes one, which has no gradient.
        attached: Whether activations stay attached to the graph, and gradients likewise.
        root: Makes the tensor at which the graph begins from an output that does not require grad.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        reshape: Callable[[Any], Tensor] | None = None,
        *,
        attached: bool = False,
        root: Callable[[Tensor], Tensor] = leaf,
    ) -> None:
        self.layers, self.reshape = tuple(layers), reshape
        self.attached, self.root = attached, root
        self.calls: dict[nn.Module, list[Tap]] = {}

    def attach(self) -> list[RemovableHandle]:
        """Hooks the layers."""
        return [
            layer.register_forward_hook(self._on_forward) for layer in dict.fromkeys(self.layers)
        ]

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watches one forward pass, of which nothing is known before."""
        self.clear()
        handles = self.attach()
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def clear(self) -> None:
        """Forgets the last pass."""
        self.calls.clear()

    def let_go(self) -> None:
        """Cuts all that was found off the graph."""
        for tap in (tap for calls in self.calls.values() for tap in calls):
            tap.activation, tap.edge = tap.activation.detach(), None
            tap.arrived[:] = [gradient.detach() for gradient in tap.arrived]

    def differentiate(self, score: Tensor, *also: Tensor, retain_graph: bool = False) -> None:
        """Lets the gradients of a score arrive, and goes no further back than to them.

        Args:
            score: A number.
            also: Leaves whose ``grad`` is to be set.
            retain_graph: Whether there will be another score.

        Raises:
            ValueError: If the score depends on none of the layers.
        """
        taps = [tap for calls in self.calls.values() for tap in calls]
        for tap in taps:
            tap.arrived.clear()
        edges = [tap.edge for tap in taps if tap.edge is not None]
        ends = [*edges, *map(get_gradient_edge, also)]
        if score.requires_grad and ends:
            found = torch.autograd.grad(
                score,
                ends,
                retain_graph=retain_graph or self.attached,
                create_graph=self.attached,
                allow_unused=True,
            )
            for tensor, gradient in zip(also, found[len(edges) :], strict=True):
                tensor.grad = gradient
        if not any(tap.arrived for tap in taps):
            raise ValueError(
                "targets: expected a score that depends on a target layer, got one that depends on "
                "none: was it computed by this model, with gradients enabled?"
            )

    def _on_forward(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        calls = self.calls.setdefault(module, [])
        if not isinstance(output, Tensor) and self.reshape is not None:
            calls.append(Tap(self.reshape(output).detach().clone()))
            return None
        tensor = _only_map(module, output)
        if not torch.is_grad_enabled():
            calls.append(Tap(self._folded(tensor.detach().clone())))
            return None
        if tensor.requires_grad:
            watched = tensor
            # A hook on a view never fires once a successor overwrites it.
            flowing = tensor.clone() if self.attached or tensor._is_view() else tensor
        else:
            watched = self.root(tensor)
            flowing = graft(tensor, watched)
        activation = watched if self.attached else watched.detach()
        if watched is tensor and not self.attached:
            activation = activation.clone()  # a later module may overwrite it
        tap = Tap(self._folded(activation), get_gradient_edge(watched))
        watched.register_hook(self._receiver(tap.arrived))  # type: ignore[no-untyped-call]
        calls.append(tap)
        return exchanged(output, tensor, flowing)

    def _receiver(self, arrived: list[Tensor]) -> Callable[[Tensor], None]:
        def receive(gradient: Tensor) -> None:
            arrived[:] = [self._folded(gradient if self.attached else gradient.detach())]

        return receive

    def _folded(self, tensor: Tensor) -> Tensor:
        return tensor if self.reshape is None else self.reshape(tensor)


def _only_map(module: nn.Module, output: Any) -> Tensor:
    """The tensor in a layer's output that has a map."""
    if isinstance(output, Tensor):
        return output
    found = [one for one in tensors_in(output) if one.is_floating_point() and one.ndim >= 3]
    if len(found) != 1:
        raise ValueError(
            f"target_layers: expected {type(module).__name__} to return one floating tensor "
            f"[B, C, h, w], got {type(output).__name__} with {len(found)} such; pass a reshape "
            "that makes one of it"
        )
    return found[0]
