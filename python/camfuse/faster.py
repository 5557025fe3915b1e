"""The same forward pass, faster: batch norms folded into convolutions, channels last in memory.

Inference on a CPU spends a good part of its time on batch norms, which are mere scalings, and on
changing layouts. The model's parameters stay untouched, and nothing is assumed: the faster pass is
compared with the plain one first.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from camfuse.intercept import Forward, intercepted
from camfuse.preserve import state_tensors
from camfuse.replay import Arguments, copied, same_outputs

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_FOLDED = (torch.float32, torch.float64)  # weights of fewer bits would be rounded too coarsely


@contextlib.contextmanager
def faster(
    model: nn.Module, arguments: Arguments, *, unlike: nn.Module | None = None
) -> Iterator[str | None]:
    """This thread's passes through ``model`` are faster inside, if that is proven to be the same.

    Gradients must be off. Layers may return other strides inside, and a convolution may return what
    its batch norm would.

    Args:
        model: In eval mode.
        arguments: The sample that the proof is made with.
        unlike: A layer that must return what it always does.

    Yields:
        None, or why passes are plain.
    """
    modules = tuple(model.modules())
    if any(one.device.type != "cpu" for one in state_tensors(modules)):
        yield "only passes on the CPU become faster"
        return

    def run() -> Any:
        args, kwargs = copied(arguments(2))
        return model(*args, **kwargs)

    substitutes = _Folded(model, modules, run, unlike)
    plain = run()
    refusal = None
    try:
        with intercepted(modules, substitutes.answer):
            same = same_outputs(run(), plain)
    except Exception as error:  # whatever user code does with strides it did not expect
        refusal = f"folding and channels last raise {type(error).__name__}"
    else:
        refusal = None if same else "folding and channels last give another output"
    del plain
    with contextlib.nullcontext() if refusal else intercepted(modules, substitutes.answer):
        yield refusal


class _Folded:
    """What convolutions, the batch norms right behind them, and the model itself do instead."""

    def __init__(
        self,
        model: nn.Module,
        modules: tuple[nn.Module, ...],
        run: Any,
        unlike: nn.Module | None,
    ) -> None:
        self._model = model
        self._weights: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self._absorbed: set[nn.Module] = set()
        pairs = _Pairs()
        with intercepted(modules, pairs.listen):
            run()
        for conv, norm in pairs.inseparable():
            if unlike is not conv:
                self._weights[conv] = _fold(conv, norm)
                self._absorbed.add(norm)

    def answer(self, module: nn.Module, forward: Forward) -> Forward:
        if module is self._model:

            def root(*args: Any, **kwargs: Any) -> Any:
                args, kwargs = tree_map(_channels_last, (args, kwargs))
                return tree_map(_contiguous, forward(*args, **kwargs))

            return root
        if module in self._absorbed:
            return lambda x: x
        if module in self._weights:
            weight, bias = self._weights[module]
            return lambda x: module._conv_forward(x, weight, bias)  # type: ignore[operator]
        return forward


class _Pairs:
    """Finds convolutions whose output goes into a batch norm first, in every call of both."""

    def __init__(self) -> None:
        self._calls: Counter[nn.Module] = Counter()
        self._pairs: Counter[tuple[nn.Module, nn.Module]] = Counter()
        self._last: tuple[nn.Module, Tensor, int] | None = None

    def listen(self, module: nn.Module, forward: Forward) -> Forward:
        if type(module) not in _CONVOLUTIONS + _NORMS or not _plain(module):
            return forward

        def call(*args: Any, **kwargs: Any) -> Any:
            self._calls[module] += 1
            last, self._last = self._last, None
            if type(module) in _NORMS and last is not None and len(args) == 1 and not kwargs:
                conv, output, version = last
                if args[0] is output and output._version == version:
                    self._pairs[conv, module] += 1
            result = forward(*args, **kwargs)
            if type(module) in _CONVOLUTIONS:
                self._last = module, result, result._version
            return result

        return call

    def inseparable(self) -> list[tuple[nn.Module, nn.Module]]:
        return [
            (conv, norm)
            for (conv, norm), count in self._pairs.items()
            if count == self._calls[conv] == self._calls[norm]
        ]


def _plain(module: nn.Module) -> bool:
    """Whether nobody listens to it, and it computes with what folding knows."""
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    if isinstance(module, _NORMS):
        return module.running_mean is not None and not module.training
    weight = module.weight
    return isinstance(weight, nn.Parameter) and weight.dtype in _FOLDED


def _fold(conv: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does what both do, computed in f64."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = (
        -norm.running_mean.double()
        if conv.bias is None
        else (conv.bias.double() - norm.running_mean.double())
    )
    bias = shift * scale
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    weight = conv.weight.double() * scale.reshape(-1, *[1] * (conv.weight.ndim - 1))
    return _channels_last(weight.to(conv.weight.dtype)), bias.to(conv.weight.dtype)


def _channels_last(value: Any) -> Any:
    if isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point():
        return value.contiguous(memory_format=torch.channels_last)
    return value


def _contiguous(value: Any) -> Any:
    return value.contiguous() if isinstance(value, Tensor) else value
