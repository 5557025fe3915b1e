"""What extractors hook: layers whose last call counts, and hooks that keep nothing alive."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from camfuse.compat.taps import Tap, Taps, leaf
from camfuse.compat.torchcam.methods._economy import Frozen, is_transformed, unrecorded


class WeakHook:
    """A method as a hook that does not keep its object alive, and does nothing once that is gone.

    Nor in copies: those of a hooked model are watched by nobody.

    Args:
        method: The method.
        also: Keyword arguments that it gets beside a hook's.
    """

    def __init__(self, method: Callable[..., Any] | None = None, **also: Any) -> None:
        self._method = None if method is None else weakref.WeakMethod(method)
        self._also = also

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the method returns."""
        method = None if self._method is None else self._method()
        return None if method is None else method(*args, **kwargs, **self._also)

    def __reduce__(self) -> tuple[type[WeakHook], tuple[()]]:
        return WeakHook, ()


class Watch(Taps):
    """Taps that can be closed, know a layer's last call alone, and say who began the graph.

    Args:
        names: The layers to watch, and what they are called.
        reshape: As for :class:`camfuse.compat.taps.Taps`.
        gradients: Whether gradients will be asked for; else the caller's graph is left alone.
    """

    def __init__(
        self,
        names: Mapping[nn.Module, str],
        reshape: Callable[[Any], Tensor] | None,
        *,
        gradients: bool,
    ) -> None:
        super().__init__(list(names), reshape)
        self.names, self.gradients = names, gradients
        self.open = True
        self._held: dict[int, Frozen] = {}  # by thread
        self._modules: tuple[nn.Module, ...] = ()  # what was frozen in the last pass
        self._given: set[int] = set()  # ids of the tensors that the model was called with
        self._rooted: set[nn.Module] = set()
        self._recomputing = False

    def attach(self) -> list[RemovableHandle]:
        """Hooks the layers."""
        return [layer.register_forward_hook(WeakHook(self._on_forward)) for layer in self.names]

    def begin(self, modules: Sequence[nn.Module], given: Sequence[Tensor]) -> None:
        """A pass begins, of which nothing is recorded before the first layer if that can be.

        Args:
            modules: What to freeze: all modules of the model, or none.
            given: The tensors that it is called with.
        """
        self.end()  # what an interrupted pass left behind
        self.clear()
        self._held[threading.get_ident()] = frozen = Frozen()
        self._modules = tuple(modules) if frozen.hold(modules) else ()
        self._given = set(map(id, given))

    def end(self) -> None:
        """This thread's pass has ended, one way or another."""
        if (frozen := self._held.get(threading.get_ident())) is not None:
            frozen.release()
        self._held.pop(threading.get_ident(), None)
        self._given = set()

    def end_all(self) -> None:
        """No pass is watched any longer."""
        for frozen in list(self._held.values()):
            frozen.release()
        self._held.clear()

    def clear(self) -> None:
        """Forgets the last pass."""
        super().clear()
        self._rooted.clear()

    def last(self, layer: nn.Module) -> Tap | None:
        """The last call of a layer."""
        calls = self.calls.get(layer)
        return calls[-1] if calls else None

    def differentiate(self, score: Tensor, *also: Tensor, retain_graph: bool = False) -> None:
        """As for taps; nothing of the graph is held afterwards unless it is to be retained."""
        self._recomputing, frozen = True, Frozen()
        try:
            frozen.hold(self._modules)
            super().differentiate(score, *also, retain_graph=retain_graph)
        finally:
            self._recomputing = False
            frozen.release()
            if not retain_graph:
                for tap in (tap for calls in self.calls.values() for tap in calls):
                    tap.edge = None

    def _on_forward(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not self.open or is_transformed():
            return None
        unrooted = isinstance(output, Tensor) and not output.requires_grad and self.gradients
        if self._recomputing:
            # Checkpointing runs modules again, which must record what they did before.
            again = unrooted and module in self._rooted
            return output.detach().requires_grad_().clone() if again else None
        if unrooted and torch.is_grad_enabled():
            self._rooted.add(module)
            if id(output) in self._given:
                output = output.clone()  # the caller's own tensor must not join a graph
        name = self.names[module]
        unknown = self._modules and threading.get_ident() in self._held
        self.root = partial(unrecorded, layer=name) if unknown else leaf
        with contextlib.nullcontext() if self.gradients else torch.no_grad():
            flowing = super()._on_forward(module, args, output)
        del self.calls.get(module, [])[:-1]  # another thread's pass may have begun meanwhile
        return flowing
