"""What a model is called with, apart from the caller's own graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from camfuse.devices import check_device

_MOST_COLORS = 4

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]
"""What the model is called with: one tensor, positional arguments, or keyword arguments.

One argument may be a list of images ``[C, H, W]``, whose length is the batch then.
"""


def first_image(inputs: Inputs) -> Tensor:
    """The first four-axis tensor among the inputs, or else the first tensor with a batch axis.

    Of a list of images ``[C, H, W]``, as detectors take, it is the first one, as often as there are
    images: ``[B, C, H, W]``.

    Raises:
        ValueError: If there is none, its batch is empty, or it is on a device without kernels.
    """
    tensors = [one for one in _tensors(inputs) if one.ndim]
    images = image_list(inputs)
    image = next((one for one in tensors if one.ndim == 4), tensors[0] if tensors else None)
    if images is not None:
        image = images[0].expand(len(images), *images[0].shape)
    if image is None:
        raise ValueError("inputs: expected at least one tensor with a batch axis")
    if image.shape[0] == 0:
        raise ValueError(f"inputs: the batch is empty, got shape {tuple(image.shape)}")
    check_device("inputs", image.device)
    return image


def image_list(inputs: Inputs) -> Sequence[Tensor] | None:
    """The argument that is a list of images ``[C, H, W]``, if there is one and no batch."""
    if isinstance(inputs, Tensor) or any(one.ndim >= 4 for one in _tensors(inputs)):
        return None
    arguments = inputs.values() if isinstance(inputs, Mapping) else inputs
    return next((one for one in arguments if _is_image_list(one)), None)


def channel_axis(shape: Sequence[int]) -> int:
    """Which axis of a batch of images holds the channels: the second, unless others are so few.

    Images may have them last ``[B, H, W, C]``, and films after time ``[B, T, C, H, W]``.
    """
    places = [1, 2, 4] if len(shape) == 5 else [1, len(shape) - 1]
    few = [place for place in places if shape[place] <= _MOST_COLORS]
    return few[0] if few and len(shape) in (4, 5) else 1


def image_size(image: Tensor) -> tuple[int, ...]:
    """``(H, W)`` of a batch of images, ``(L,)`` of sequences, ``(D, H, W)`` of volumes; else 0s."""
    if not 3 <= image.ndim <= 5:
        return (0, 0)
    channels = channel_axis(image.shape)
    return tuple(n for i, n in enumerate(image.shape) if i not in (0, channels))


def input_shapes(inputs: Inputs) -> tuple[tuple[int, ...], ...]:
    """The shapes of all tensors among the inputs."""
    return tuple(tuple(one.shape) for one in _tensors(inputs))


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


def part_of_inputs(inputs: Inputs, batch: int, part: slice) -> Inputs:
    """The inputs for some samples: of tensors whose first axis is the batch, these samples only."""
    images = image_list(inputs)

    def cut(value: Any) -> Any:
        if images is not None:
            return value[part] if value is images else value
        batched = isinstance(value, Tensor) and value.ndim and len(value) == batch
        return value[part] if batched else value

    parts: Inputs = tree_map(cut, inputs, is_leaf=lambda one: one is images)
    return parts


def _is_image_list(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(
            isinstance(one, Tensor)
            and one.ndim == 3
            and one.shape[0] <= _MOST_COLORS
            and one.is_floating_point()
            for one in value
        )
    )


def _tensors(inputs: Inputs) -> list[Tensor]:
    if not isinstance(inputs, Tensor | Sequence | Mapping) or isinstance(inputs, str):
        raise ValueError(
            "inputs: expected a tensor, a sequence of positional or a mapping of keyword "
            f"arguments, got {type(inputs).__name__}"
        )
    return [one for one in tree_leaves(inputs) if isinstance(one, Tensor)]
