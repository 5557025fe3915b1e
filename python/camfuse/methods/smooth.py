"""Grad-CAM++ from derivatives that are averaged over noisy copies of the image."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from camfuse import ops
from camfuse.capture import capture
from camfuse.captured import UNREACHED, Captured
from camfuse.devices import upload
from camfuse.inputs import Inputs, first_image
from camfuse.methods.base import LayerMaps, PassMethod, Scene, UndefinedError, wide
from camfuse.targets import count_targets

_COPIES = 4
_DEVIATION = 0.3  # of the noise, in units of the model's input
_EPSILON = 1e-8


def smoothed_maps(scene: Scene) -> Iterator[LayerMaps | tuple[Captured, UndefinedError]]:
    """Maps of all layers, from four noisy passes and a clean one.

    With D_n the mean over the noisy passes of the n-th power of the gradient, which stands for the
    n-th derivative as in Grad-CAM++, and A of the clean pass:

    ``w_k = sum_p max(D_1, 0) D_2 / (2 D_2 + D_3 sum_p A_k + 1e-8)``, 0 where D_2 is 0.

    The paper has D_1 in the fraction's numerator, where Grad-CAM++ has the second derivative; this
    follows the latter, as torchcam does. Torchcam departs further: it rectifies the gradient of the
    last noisy pass alone, adds up ``A D_3`` over the positions, and weighs the activations of that
    last noisy pass.

    The noise is drawn on the CPU, once per pass for all samples, so that neither the device nor
    how a batch is split changes a map. The first image among the inputs receives it.

    Until the clean pass, three sums of each layer's size are held per layer and target, f32 or f64:
    fewer layers need less. The layers of one pass are those of another by name.
    """
    modules = list({layer.module: None for layer in scene.layers})
    sums: dict[tuple[str, int], Tensor] = {}
    maps: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def add(layer: Captured, target: int, A: Tensor, G: Tensor | None) -> None:
        assert G is not None
        g = wide(G)
        first, second, third = sums.setdefault((layer.name, target), g.new_zeros(3, *g.shape))
        square = g.square()
        first += g
        second += square
        third.addcmul_(square, g)

    def weigh(layer: Captured, target: int, A: Tensor, G: Tensor | None) -> None:
        found = sums.pop((layer.name, target), None)
        if found is not None:
            weights = _weights(found.div_(_COPIES), A).to(A.dtype)
            (one, magnitudes), _ = ops.layer_cam(
                A, None, ("weighted", "|weighted|"), weights=weights
            )
            maps[layer.name, target] = one, magnitudes.amax((1, 2))

    def explain(inputs: Inputs, *, noisy: bool) -> None:
        capture(
            scene.model,
            inputs,
            add if noisy else weigh,
            layers=modules,
            target=scene.target,
            reshape=scene.reshape,
            allow_training=scene.allow_training,
            gradients=noisy,
        )

    for inputs in _noisy_copies(scene):
        explain(inputs, noisy=True)
    explain(scene.inputs, noisy=False)
    targets = range(count_targets(scene.target))
    for layer in scene.layers:
        some = next((maps[layer.name, t] for t in targets if (layer.name, t) in maps), None)
        if some is None:
            yield layer, UndefinedError(UNREACHED)
            continue
        blank = torch.zeros_like(some[0]), torch.zeros_like(some[1])
        for target in targets:
            yield LayerMaps(layer, target, *maps.get((layer.name, target), blank))


def _weights(means: Tensor, A: Tensor) -> Tensor:
    """``[B, C]``, of the derivatives' means ``[3, B, C, h, w]``."""
    first, second, third = means
    total = wide(A).sum((2, 3), keepdim=True)
    parts = second / (2 * second + third * total + _EPSILON)
    parts = torch.where(second == 0, torch.zeros_like(parts), parts)
    weights: Tensor = (first.clamp(min=0) * parts).sum((2, 3))
    return weights


def _noisy_copies(scene: Scene) -> Iterator[Inputs]:
    image = first_image(scene.inputs)
    if not image.is_floating_point():
        raise ValueError(f"inputs: expected a floating image to add noise to, got {image.dtype}")
    generator = torch.Generator().manual_seed(scene.seed)
    for _ in range(_COPIES):
        noise = torch.randn(image.shape[1:], generator=generator) * _DEVIATION
        noisy = image + upload(noise.to(image.dtype), image.device)
        copies: Inputs = tree_map(
            lambda one, noisy=noisy: noisy if one is image else one, scene.inputs
        )
        yield copies


SMOOTH_METHODS = (
    PassMethod(
        name="smoothgradcam++",
        title="Smooth Grad-CAM++",
        run=smoothed_maps,
        formula="sum_k w_k A_k, w_k = sum_p max(D_1, 0) D_2 / (2 D_2 + D_3 sum_p A_k), "
        "D_n = mean of G_k^n over noisy images",
        source="Omeiza et al., Smooth Grad-CAM++, 2019, arXiv 1908.01224",
        cost="six passes for all layers",
    ),
)
