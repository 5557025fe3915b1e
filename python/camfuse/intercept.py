"""Calls of modules, answered by someone else for a while."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

Forward = Callable[..., Any]
Answer = Callable[[nn.Module, Forward], Forward]
"""From a module and its forward to what is called instead."""


@contextlib.contextmanager
def intercepted(modules: Iterable[nn.Module], answer: Answer) -> Iterator[None]:
    """Calls of ``modules`` from this thread are answered by ``answer`` inside.

    May be nested: the inner one sees the outer one's answers. Hooks of the modules still run, on
    what was answered. TorchScript modules are left alone, as they run no Python.
    """
    owner = threading.get_ident()
    kept: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def gated(forward: Forward, instead: Forward) -> Forward:
        def call(*args: Any, **kwargs: Any) -> Any:
            chosen = instead if threading.get_ident() == owner else forward
            return chosen(*args, **kwargs)

        return call

    try:
        for module in modules:
            if isinstance(module, torch.jit.ScriptModule):
                continue
            own = vars(module)
            kept.append((own, {"forward": own["forward"]} if "forward" in own else {}))
            own["forward"] = gated(module.forward, answer(module, module.forward))
        yield
    finally:
        for own, before in reversed(kept):
            own.pop("forward", None)
            own.update(before)
