"""Channels weighed by their Shapley values, as far as a Taylor series of second order tells."""

from __future__ import annotations

import torch
from torch import Tensor

from camfuse.methods.base import Pair, UndefinedError, WeightMethod, wide


def shapley_weights(pair: Pair) -> Tensor:
    """``[B, C]``: mean over the positions of G - H A / 2, H the Hessian of the score in A.

    H is that of the whole output of the layer, class and register tokens included, though no map
    shows them. It is 0 where the score depends on the layer piecewise linearly, as through ReLU
    alone; the weights are Grad-CAM's there.

    All layers share the graph of the gradients, which lives until the last of them was visited: a
    pass holds about three times what one of first order does.
    """
    A, G = pair.layer.activation, pair.layer.gradient
    assert A is not None
    assert G is not None
    weights = wide(pair.known_gradients.detach()).mean((2, 3))
    if not G.requires_grad:
        return weights
    try:
        (product,) = torch.autograd.grad(G, A, A.detach(), retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "is not implemented" not in str(error):
            raise
        raise UndefinedError(f"torch cannot differentiate twice: {error}") from error
    if product is None:
        return weights
    return weights - wide(pair.layer.spatial(product)).mean((2, 3)) / 2


SHAPLEY_METHODS = (
    WeightMethod(
        name="shapleycam",
        title="ShapleyCAM",
        weights=shapley_weights,
        formula="sum_k w_k A_k, w_k = mean_p (G - H A / 2)_k, H the Hessian of the score in A",
        source="Cai, CAMs as Shapley Value-based Explainers, 2025, arXiv 2501.06261",
        cost="one pass for all layers, and a product with each one's Hessian",
        differentiable=False,
        second_order=True,
    ),
)
