"""What a model is called with, apart from the caller's own graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from camfuse.devices import check_device

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]
"""What the model is called with: one tensor, positional arguments, or keyword arguments."""


def first_image(inputs: Inputs) -> Tensor:
    """The first four-axis tensor among the inputs, or else the first tensor with a batch axis.

    Raises:
        ValueError: If there is none, its batch is empty, or it is on a device without kernels.
    """
    tensors = [one for one in _tensors(inputs) if one.ndim]
    image = next((one for one in tensors if one.ndim == 4), tensors[0] if tensors else None)
    if image is None:
        raise ValueError("inputs: expected at least one tensor with a batch axis")
    if image.shape[0] == 0:
        raise ValueError(f"inputs: the batch is empty, got shape {tuple(image.shape)}")
    check_device("inputs", image.device)
    return image


def call_arguments(
    model: nn.Module, inputs: Inputs, *, create_graph: bool
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments, with copies of all tensors: the model may overwrite them.

    Args:
        model: Whose parameters may already require grad.
        inputs: What the caller gave.
        create_graph: Whether tensors stay attached to the caller's graph; they begin one of their
            own if nothing else requires grad. Without it they are detached.
    """
    given = _tensors(inputs)
    attached = create_graph and any(one.requires_grad for one in (*model.parameters(), *given))

    def prepare(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        with torch.inference_mode(False), torch.enable_grad():
            if not create_graph:
                return value.detach().clone()
            copy = value.clone()
            rooted = not attached and value.is_floating_point()
            return copy.detach().requires_grad_() if rooted else copy

    if isinstance(inputs, Tensor):
        return (prepare(inputs),), {}
    copies = tree_map(prepare, inputs)
    return ((), dict(copies)) if isinstance(inputs, Mapping) else (tuple(copies), {})


def with_roots(inputs: Inputs) -> Inputs:
    """The inputs with graphs that begin at them, so that all layers depend on something.

    Even where the caller has frozen the first layers and trains the last.
    """

    def root(value: Any) -> Any:
        floating = isinstance(value, Tensor) and value.is_floating_point()
        with torch.inference_mode(False):
            return value.detach().clone().requires_grad_() if floating else value

    rooted: Inputs = tree_map(root, inputs)
    return rooted


def part_of_inputs(inputs: Inputs, batch: int, part: slice) -> Inputs:
    """The inputs for some samples: of tensors whose first axis is the batch, these samples only."""

    def cut(value: Any) -> Any:
        batched = isinstance(value, Tensor) and value.ndim and len(value) == batch
        return value[part] if batched else value

    parts: Inputs = tree_map(cut, inputs)
    return parts


def _tensors(inputs: Inputs) -> list[Tensor]:
    if not isinstance(inputs, Tensor | Sequence | Mapping) or isinstance(inputs, str):
        raise ValueError(
            "inputs: expected a tensor, a sequence of positional or a mapping of keyword "
            f"arguments, got {type(inputs).__name__}"
        )
    return [one for one in tree_leaves(inputs) if isinstance(one, Tensor)]
