"""What a model is called with, apart from the caller's own graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]
"""What the model is called with: one tensor, positional arguments, or keyword arguments."""


def first_image(inputs: Inputs) -> Tensor:
    """The first four-axis tensor among the inputs, or else the first tensor with a batch axis.

    Raises:
        ValueError: If there is none, or its batch is empty.
    """
    args, kwargs = _split(inputs)
    tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor) and one.ndim]
    image = next((one for one in tensors if one.ndim == 4), tensors[0] if tensors else None)
    if image is None:
        raise ValueError("inputs: expected at least one tensor with a batch axis")
    if image.shape[0] == 0:
        raise ValueError(f"inputs: the batch is empty, got shape {tuple(image.shape)}")
    if image.device.type != "cpu":
        raise ValueError(
            "inputs: camfuse's kernels run on the CPU so far, move the model and inputs there; "
            f"got {image.device}"
        )
    return image


def call_arguments(
    model: nn.Module, inputs: Inputs, *, create_graph: bool
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments, sharing the memory of ``inputs``.

    Args:
        model: Whose parameters may already require grad.
        inputs: What the caller gave.
        create_graph: Whether tensors stay attached to the caller's graph; they begin one of their
            own if nothing else requires grad. Without it they are detached.
    """
    args, kwargs = _split(inputs)
    values = (*model.parameters(), *args, *kwargs.values())
    attached = any(isinstance(one, Tensor) and one.requires_grad for one in values)

    def prepare(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        with torch.inference_mode(False):
            if value.is_inference():
                value = value.clone()
            if not create_graph:
                return value.detach()
            if attached or not value.is_floating_point():
                return value
            return value.detach().requires_grad_()

    return tuple(map(prepare, args)), {name: prepare(value) for name, value in kwargs.items()}


def _split(inputs: Inputs) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    return ((), inputs) if isinstance(inputs, Mapping) else (tuple(inputs), {})
