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
    requires grad, skips the modules inside.

    Args:
        modules: Whose parameters and buffers. If one of them is part of a graph already, or some
            other tensor of a module requires grad, all stay as they are.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._tensors: list[Tensor] = []
        tensors = {id(one): one for one in state_tensors(modules)}
        others = (one for module in modules for one in vars(module).values())
        foreign = any(isinstance(one, Tensor) and one.requires_grad for one in others)
        if foreign or any(one.requires_grad and not one.is_leaf for one in tensors.values()):
            return
        with _lock:
            self._tensors = [
                one for key, one in tensors.items() if one.requires_grad or key in _holders
            ]
            if self and not _holders:
                _fastpath[:] = [torch.backends.mha.get_fastpath_enabled()]
                torch.backends.mha.set_fastpath_enabled(False)
            for one in self._tensors:
                _holders[id(one)] = _holders.get(id(one), 0) + 1
                one.requires_grad_(False)

    def __bool__(self) -> bool:
        """Whether anything is held."""
        return bool(self._tensors)

    def release(self) -> None:
        """Lets go; a second time, nothing happens."""
        with _lock:
            for one in self._tensors:
                _holders[id(one)] -= 1
                if not _holders[id(one)]:
                    del _holders[id(one)]
                    one.requires_grad_(True)
            if self._tensors and not _holders:
                torch.backends.mha.set_fastpath_enabled(_fastpath.pop())
            self._tensors = []


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
