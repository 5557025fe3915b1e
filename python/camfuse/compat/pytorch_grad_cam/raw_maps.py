"""Raw maps and weights of the arrays that hooks of subclasses work on."""

from __future__ import annotations

from typing import Any

import torch

from camfuse import reference
from camfuse.compat.native_maps import native_map
from camfuse.compat.pytorch_grad_cam.arrays import Array, as_array
from camfuse.layouts import plane
from camfuse.ops import Rule


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
