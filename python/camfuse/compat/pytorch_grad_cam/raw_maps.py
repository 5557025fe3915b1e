"""What hooks of subclasses work on: NumPy arrays, in and out of native code."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from camfuse import reference
from camfuse.compat.native_maps import native_map
from camfuse.layouts import plane
from camfuse.ops import Rule

Array = npt.NDArray[Any]


def as_array(tensor: Any) -> Any:
    """A tensor as NumPy, bf16 as f32, which NumPy lacks; all else as it is."""
    if not isinstance(tensor, Tensor):
        return tensor
    wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return wide.numpy(force=True)


def image_of(method: str, activations: Any, grads: Any, eigen_smooth: bool = False) -> Array:
    """The raw map ``[B, *grid]`` of arrays or tensors by a method of the registry."""
    A = torch.as_tensor(activations).detach()
    G = None if grads is None else torch.as_tensor(grads).detach()
    found: Array = as_array(native_map(method, A, G, eigen_smooth=eigen_smooth))
    return found


def rule_weights(rule: Rule, activations: Any, grads: Any) -> Array:
    """The weights ``[B, C]`` that a rule gives to channels, with sums taken in f64."""
    A, G = (plane(torch.as_tensor(one).detach()).double() for one in (activations, grads))
    found: Array = as_array(reference.channel_weights(rule, A, G).to(torch.as_tensor(grads).dtype))
    return found
