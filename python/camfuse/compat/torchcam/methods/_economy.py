"""Forward passes of the caller's in which nothing is recorded before the first watched layer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camfuse.preserve import state_tensors

_lock = threading.Lock()
_holders: dict[int, int] = {}  # of a tensor's id, which is alive as long as anyone holds it
_fastpath: list[bool] = []  # attention's, as it was before the first of all holders


class Frozen:
    """Parameters that require no grad until released; by several holders, until the last lets go.

    Attention takes its plain path for as long: the fast one, which it would choose where nothing
    requires grad, skips the modules inside. An interrupt may come at any time: what is held is
    known before it changes.
    """

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []

    def hold(self, modules: Sequence[nn.Module]) -> bool:
        """Holds the parameters and buffers of modules, and says whether there are any to hold.

        There are none where nothing requires grad, or where one of them is part of a graph, or some
        other tensor of a module requires grad: somebody will differentiate further.
        """
        tensors = {id(one): one for one in state_tensors(modules)}
        others = (one for module in modules for one in vars(module).values())
        foreign = any(isinstance(one, Tensor) and one.requires_grad for one in others)
        if foreign or any(one.requires_grad and not one.is_leaf for one in tensors.values()):
            return False
        with _lock:
            for key, one in tensors.items():
                if one.requires_grad or key in _holders:
                    self._tensors.append(one)
                    _holders[key] = _holders.get(key, 0) + 1
                    one.requires_grad_(False)
            if self._tensors and not _fastpath:
                _fastpath.append(torch.backends.mha.get_fastpath_enabled())
                torch.backends.mha.set_fastpath_enabled(False)
        return bool(self._tensors)

    def release(self) -> None:
        """Lets go; a second time, nothing happens."""
        with _lock:
            while self._tensors:
                one = self._tensors[-1]
                if others := _holders.pop(id(one), 1) - 1:
                    _holders[id(one)] = others
                else:
                    one.requires_grad_(True)
                self._tensors.pop()
            if _fastpath and not _holders:
                torch.backends.mha.set_fastpath_enabled(_fastpath.pop())


def is_transformed() -> bool:
    """Whether a model runs on stand-ins: traced, exported, or under a transform of torch.func."""
    if torch.compiler.is_dynamo_compiling():
        return False  # hooks are compiled with the model, and run as they are written
    return (
        torch._C._get_tracing_state() is not None
        or torch.compiler.is_exporting()
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


class Unrecorded(torch.autograd.Function):
    """Where a graph begins whose past was not recorded, which is told to whoever asks for it."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor, layer: str) -> Tensor:
        ctx.layer = layer
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise RuntimeError(
            f"this pass recorded no graph before {ctx.layer!r}, because a camfuse extractor "
            "watches it; call extractor.disable_hooks(), or model.train(), for passes that are "
            "differentiated further"
        )


def unrecorded(output: Tensor, layer: str) -> Tensor:
    """A root for ``output``, which does not require grad, that names its layer."""
    anchor = torch.zeros((), requires_grad=True)
    root: Tensor = Unrecorded.apply(output.detach(), anchor, layer)
    return root
