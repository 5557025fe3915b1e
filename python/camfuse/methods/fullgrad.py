"""What the biases of a network contribute to its score, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from camfuse.methods.base import MapMethod, Pair, UndefinedError, wide

# A plane whose values differ by no more than this, relative to the largest, is constant.
_ROUNDINGS = 16


def bias_of(module: nn.Module) -> Tensor:
    """What a layer adds to each channel of its output ``[C]``, f64 or f32.

    Convolutions and linear layers add their bias. A batch normalisation in eval mode scales by
    ``gamma / sqrt(var + eps)`` and adds the rest, ``beta - mean * gamma / sqrt(var + eps)``, which
    the paper calls its implicit bias.

    Raises:
        UndefinedError: If the layer adds nothing, or something that depends on its input.
    """
    kind = type(module)
    if isinstance(module, _ConvNd | nn.Linear):
        if module.bias is None:
            raise UndefinedError("it has no bias")
        return wide(module.bias.detach())
    if isinstance(module, _BatchNorm):
        if kind.forward not in (_BatchNorm.forward, nn.SyncBatchNorm.forward):
            raise UndefinedError(f"its class {kind.__name__} does more than to normalise")
        if module.training or module.running_mean is None:
            raise UndefinedError("it normalises by statistics of the batch")
    elif kind.__name__ != "FrozenBatchNorm2d":  # of torchvision
        raise UndefinedError(
            "only convolutions, linear layers and batch normalisations have a bias"
        )
    mean, variance = wide(module.running_mean), wide(module.running_var)  # type: ignore[arg-type]
    scale = (variance + module.eps).rsqrt()  # type: ignore[operator]
    if module.weight is not None:
        scale = scale * wide(module.weight.detach())  # type: ignore[operator]
    shift = -mean * scale
    return shift if module.bias is None else shift + wide(module.bias.detach())  # type: ignore[operator]


def has_bias(module: nn.Module) -> bool:
    """Whether :func:`bias_of` the layer is defined."""
    try:
        bias_of(module)
    except UndefinedError:
        return False
    return True


def rescaled(terms: Tensor) -> Tensor:
    """Magnitudes ``[B, C, h, w]``, each channel's range mapped to [0, 1], then added ``[B, h, w]``.

    A channel that is constant but for rounding adds nothing.
    """
    magnitudes = terms.abs()
    low = magnitudes.amin((2, 3), keepdim=True)
    high = magnitudes.amax((2, 3), keepdim=True)
    width = high - low
    constant = width <= _ROUNDINGS * torch.finfo(terms.dtype).eps * high
    factors = torch.where(constant, torch.zeros_like(width), 1 / width)
    return magnitudes.sub_(low).mul_(factors).sum(1)


def bias_term(module: nn.Module, G: Tensor) -> Tensor:
    """A layer's part of FullGrad ``[B, h, w]``, of its gradients ``[B, C, h, w]``."""
    return rescaled(bias_of(module)[:, None, None] * wide(G))


def _bias_map(pair: Pair) -> tuple[Tensor, Tensor]:
    maps = bias_term(pair.layer.module, pair.known_gradients.detach())
    return maps, maps.amax((1, 2))  # no term is negative, so that nothing cancels


FULL_GRADIENT_METHODS = (
    MapMethod(
        name="fullgrad",
        title="FullGrad, one layer",
        make=_bias_map,
        formula="sum_k psi(b_k G_k), b the layer's bias, psi the magnitude with its range over p "
        "rescaled to [0, 1]; camfuse.full_grad adds up all layers",
        source="Srinivas and Fleuret, Full-Gradient Representation, NeurIPS 2019, arXiv 1905.00780",
        native="",
        differentiable=False,
        only="convolutions and linear layers with a bias, batch normalisations",
    ),
)
