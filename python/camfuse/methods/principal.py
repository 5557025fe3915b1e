"""Methods that show the first principal component of a layer, and the smoothing by it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from camfuse import ops, reference
from camfuse.methods.base import MapMethod, Method, Pair, RuleMethod, WeightMethod

_COMPONENT = "first principal component of {}, over the positions; sign by activation energy"


_Make = Callable[[Pair], tuple[Tensor, Tensor]]


def _principal(terms: ops.Terms) -> _Make:
    """How a map is made of the terms of that name."""

    def make(pair: Pair) -> tuple[Tensor, Tensor]:
        gradients = None if terms == "activation" else pair.known_gradients
        maps, _, scales = ops.principal_map(pair.activations, gradients, terms)
        return maps, scales

    return make


def _seg_eigen_cam(pair: Pair) -> tuple[Tensor, Tensor]:
    """Its sign is the paper's (eq. 13): the larger magnitude is positive."""
    maps, ranges, scales = ops.principal_map(
        pair.activations, pair.known_gradients, "gradient_magnitude"
    )
    turned = (-ranges[:, 0] > ranges[:, 1])[:, None, None]
    return torch.where(turned, -maps, maps), scales


PRINCIPAL_METHODS = (
    MapMethod(
        name="eigencam",
        title="Eigen-CAM",
        make=_principal("activation"),
        formula=_COMPONENT.format("A_k"),
        source="Muhammad and Yeasin, Eigen-CAM, IJCNN 2020, arXiv 2008.00299",
        gradients=False,
        native="principal_map",
        differentiable=False,
    ),
    MapMethod(
        name="eigengradcam",
        title="Eigen-Grad-CAM",
        make=_principal("product"),
        formula=_COMPONENT.format("G_k A_k"),
        source="EigenGradCAM of pytorch-grad-cam",
        native="principal_map",
        differentiable=False,
    ),
    MapMethod(
        name="segeigencam",
        title="Seg-Eigen-CAM",
        make=_seg_eigen_cam,
        formula="first principal component of |G_k| A_k; its larger magnitude is positive",
        source="Chung and Ying, Seg-Eigen-CAM, Applied Sciences 15(13), 2025",
        native="principal_map",
        differentiable=False,
    ),
)

_TERMS: dict[ops.Rule, ops.Terms] = {
    "hirescam": "product",
    "elementwise": "positive_product",
    "layercam": "positive_gradient",
}


def eigen_smoothed(method: Method) -> Method:
    """The same method, but its map is the first principal component of its terms.

    Terms are what the method adds up over the channels: weighted activations, or products.

    Raises:
        ValueError: If the method's map is no sum over channels.
    """
    if isinstance(method, RuleMethod) and method.rule in _TERMS:
        make = _principal(_TERMS[method.rule])
    elif isinstance(method, RuleMethod):
        rule = method.rule
        make = _weighted(lambda pair: _channel_weights(rule, pair))
    elif isinstance(method, WeightMethod):
        make = _weighted(method.weights)
    else:
        raise ValueError(f"eigen_smooth: the map of {method.name} is no sum over channels")
    return MapMethod(
        name=method.name,
        title=method.title,
        make=make,
        formula=_COMPONENT.format("the terms"),
        source=method.source,
        gradients=method.gradients,
        native="principal_map",
        differentiable=False,
        target=method.target,
        second_order=method.second_order,
    )


def _weighted(weigh: Callable[[Pair], Tensor]) -> _Make:
    def make(pair: Pair) -> tuple[Tensor, Tensor]:
        A = pair.activations
        # Weights of 8 bits would turn the component.
        A = A if A.dtype == torch.float64 else A.float()
        maps, _, scales = ops.principal_map(A, None, "weighted", weights=weigh(pair).to(A.dtype))
        return maps, scales

    return make


def _channel_weights(rule: ops.Rule, pair: Pair) -> Tensor:
    A, G = pair.activations.double(), pair.known_gradients.double()
    return reference.channel_weights(rule, A, G)
