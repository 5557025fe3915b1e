"""Grad-CAM of one layer: its tensors, weighed by the means of their gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from torch import Tensor
from torch.nn import functional as F

from camfuse.compat.captum.attr._utils.attribution import LayerAttribution
from camfuse.compat.captum.selection import Selected
from camfuse.compat.captum.watch import layer_tensors
from camfuse.ops import layer_cam

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _behind_a_wrapper(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """The method with a ``__wrapped__``, which captum's ``NoiseTunnel`` and the like call."""

    @functools.wraps(method)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return method(*args, **kwargs)

    return call


class LayerGradCam(LayerAttribution):
    """Grad-CAM of a layer's output or input, raw: signed, at the layer's own size.

    Args:
        forward_func: A module, or anything else that can be called and runs the layer. What it is
            seen to hold of modules is left as it was found: itself, the module of a bound method or
            of a ``functools.partial``, modules that a function refers to by name.
        layer: The layer. If it is run several times, its last run counts.
        device_ids: Taken for captum's sake; ``DataParallel`` is looked through.
    """

    @_behind_a_wrapper
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Selected = None,
        additional_forward_args: object = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
        grad_kwargs: Mapping[str, Any] | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """The sum over axis 1 of the layer's tensor times the means of its gradient.

        Means are taken over all axes from the third on, whatever they stand for; gradients of two
        axes are taken as they are.

        Args:
            inputs: One tensor, or a tuple of positional arguments; the first axis is the batch.
            target: Which number of the output is explained: an index of axis 1 or a tuple of
                indices from axis 1 on, the same for all samples, or one per sample (a list or, of
                indices, a tensor); ``None`` if the output holds one number per sample.
            additional_forward_args: What follows the inputs: a tuple, or one argument.
            attribute_to_layer_input: Whether the layer's positional arguments are explained instead
                of its output.
            relu_attributions: Whether negative values become 0.
            attr_dim_summation: Whether the terms are added up over axis 1.
            grad_kwargs: ``{"create_graph": True}`` keeps attributions differentiable; they are
                detached otherwise. ``retain_graph`` is taken, and of no effect.

        Returns:
            ``[N, 1, *grid]``, or the layer's own shape without the summation; the layer's dtype, on
            its device. A tuple where the layer returns (or takes) several tensors; attributions of
            those that the score does not depend on are 0.

        Raises:
            ValueError: If an argument does not fit, the layer is not run, or the score depends on
                nothing that it returns.
        """
        given = (inputs,) if isinstance(inputs, Tensor) else inputs
        if not isinstance(given, tuple) or not all(isinstance(one, Tensor) for one in given):
            raise ValueError(
                f"inputs: expected a tensor or a tuple of tensors, got {_kinds(given)}"
            )
        more = additional_forward_args
        more = () if more is None else more if isinstance(more, tuple) else (more,)

        def attribution(A: Tensor, G: Tensor) -> Tensor:
            cam = _summed(A, G) if attr_dim_summation else _terms(A, G)
            return F.relu(cam) if relu_attributions else cam

        cams = layer_tensors(
            self.forward_func,
            self.layer,
            (*given, *more),
            target,
            attribution,
            of_input=attribute_to_layer_input,
            create_graph=_wants_graph(grad_kwargs or {}),
        )
        return cams if len(cams) > 1 else cams[0]


def _summed(A: Tensor, G: Tensor) -> Tensor:
    """``[N, 1, *grid]``, summed in f32 or f64."""
    if A.ndim < 2:
        raise ValueError(
            f"attr_dim_summation: expected False for a layer's tensor of shape {tuple(A.shape)}, "
            "which has no axis 1"
        )
    maps, _ = layer_cam(_planes(A), _planes(G), ["gradcam"])
    return maps.reshape(len(A), 1, *A.shape[2:]).to(A.dtype)


def _planes(tensor: Tensor) -> Tensor:
    """``[N, C, rows, columns]`` of ``[N, C, *grid]``, a view where one is possible."""
    if tensor.ndim == 2:
        return tensor[:, :, None, None]
    return tensor if tensor.ndim == 4 else tensor.flatten(2)[:, :, None]


def _terms(A: Tensor, G: Tensor) -> Tensor:
    return (G.mean(tuple(range(2, G.ndim)), keepdim=True) if G.ndim > 2 else G) * A


def _wants_graph(grad_kwargs: Mapping[str, Any]) -> bool:
    unknown = grad_kwargs.keys() - {"create_graph", "retain_graph"}
    if unknown:
        raise ValueError(
            f"grad_kwargs: expected create_graph and retain_graph, got {', '.join(sorted(unknown))}"
        )
    return bool(grad_kwargs.get("create_graph"))


def _kinds(value: object) -> str:
    if not isinstance(value, tuple):
        return f"a {type(value).__name__}"
    return f"({', '.join(type(one).__name__ for one in value)})"
