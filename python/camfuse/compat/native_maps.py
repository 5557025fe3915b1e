"""One layer's raw map by a method of the registry, from activations and gradients at hand."""

from __future__ import annotations

from torch import Tensor, nn

from camfuse import ops
from camfuse.captured import Captured
from camfuse.layouts import plane
from camfuse.methods import METHODS
from camfuse.methods.base import MapMethod, Pair, wide
from camfuse.methods.groups import group_methods
from camfuse.methods.principal import eigen_smoothed


def native_map(name: str, A: Tensor, G: Tensor | None, *, eigen_smooth: bool = False) -> Tensor:
    """The signed map of a layer.

    Args:
        name: A method of :data:`camfuse.METHODS` that needs nothing but activations and gradients.
        A: Activations ``[B, C, *grid]`` of one to three axes.
        G: Their gradients, if the method needs them.
        eigen_smooth: Whether the map is the first principal component of its terms; methods whose
            map is no sum of terms stay as they are.

    Returns:
        ``[B, *grid]``, f64 for f64 activations, else f32.
    """
    _check(A)
    method = METHODS[name]
    if eigen_smooth and not isinstance(method, MapMethod):
        method = eigen_smoothed(method)
    (group,) = group_methods([method])
    assert group.make is not None
    # Methods of this kind read nothing of the layer itself.
    layer = Captured(name, "", 0, tuple(A.shape[1:]), nn.Identity(), 1)
    maps, _ = group.make(Pair(layer, plane(A), None if G is None else plane(G)))
    return maps[group.rows[0]].view(len(A), *A.shape[2:])


def weighted_map(A: Tensor, weights: Tensor, *, eigen_smooth: bool = False) -> Tensor:
    """The signed map of a layer whose channels have weights.

    Args:
        A: Activations ``[B, C, *grid]`` of one to three axes.
        weights: ``[B, C]``.
        eigen_smooth: Whether the map is the first principal component of the weighted activations.

    Returns:
        ``[B, *grid]``, f64 for f64 activations, else f32.
    """
    _check(A)
    # Weights of 8 bits would turn the map.
    planes = plane(wide(A.detach()))
    weights = weights.detach().to(planes)
    if eigen_smooth:
        maps = ops.principal_map(planes, None, "weighted", weights=weights)[0]
    else:
        maps = ops.layer_cam(planes, None, ["weighted"], weights=weights)[0][0]
    return maps.view(len(A), *A.shape[2:])


def _check(A: Tensor) -> None:
    if not 3 <= A.ndim <= 5:
        raise ValueError(
            f"activations: expected [B, C, h, w], got {tuple(A.shape)}; pass a reshape"
        )
