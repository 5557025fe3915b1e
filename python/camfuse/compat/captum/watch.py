"""A layer's tensors and their gradients as they are, under any callable that runs the layer.

:func:`camfuse.capture.capture` sees the outputs of modules and folds them into maps. Here every
tensor of the layer passes through a module of its own, a *place*, which is captured instead and
left unfolded, so that inputs and several outputs are seen like one output.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from camfuse.capture import Rehearsal, capture
from camfuse.captured import Captured
from camfuse.compat.captum.owners import modules_of
from camfuse.compat.captum.selection import Selected, selected
from camfuse.inputs import first_image
from camfuse.intercept import Forward, intercepted
from camfuse.known_layouts import KnownLayouts
from camfuse.layouts import Layout
from camfuse.preserve import one_at_a_time
from camfuse.structures import exchanged


def layer_tensors(
    forward_func: Callable[..., Tensor],
    layer: nn.Module,
    arguments: tuple[Any, ...],
    target: Selected,
    make: Callable[[Tensor, Tensor], Tensor],
    *,
    of_input: bool,
    create_graph: bool,
) -> tuple[Tensor, ...]:
    """What ``make`` makes of each of the layer's tensors and its gradient.

    Args:
        forward_func: Runs the layer.
        layer: The layer.
        arguments: What it is called with.
        target: Which of its output is the score; see :func:`selected`.
        make: From a tensor and its gradient to the result.
        of_input: Whether the layer's positional arguments are meant, not what it returns.
        create_graph: Whether results stay differentiable.

    Returns:
        One result per tensor of the layer's last run.

    Raises:
        ValueError: If an argument does not fit.
    """
    if not callable(forward_func):
        raise ValueError(f"forward_func: expected a callable, got {type(forward_func).__name__}")
    if not isinstance(layer, nn.Module):
        raise ValueError(f"layer: expected a torch.nn.Module, got {type(layer).__name__}")
    target = target.cpu() if isinstance(target, Tensor) else target
    # What ran before the layer may have used its input, too. Such uses are seen in a graph that
    # begins at the arguments, whereas a cheaper one would begin at the layer.
    attached = create_graph or of_input
    arguments = tuple(map(_rooted, arguments)) if attached else arguments
    batch = len(first_image(arguments))
    watch = _Watch(layer, of_input, attached)
    made: dict[int, Tensor] = {}

    def score(output: object) -> Tensor:
        watch.end()
        total = selected(output, target).sum()
        # Only the sum of the scores counts, of which there may be fewer than samples.
        return torch.cat([total[None], total.new_zeros(batch - 1)])

    def visit(found: Captured, t: int, A: Tensor, G: Tensor | None) -> None:
        assert G is not None
        made[found.call] = make(A, G) if create_graph else make(A.detach(), G.detach())

    model = _Program(forward_func, watch)
    several = [
        one for one in model.modules() if isinstance(one, DataParallel | DistributedDataParallel)
    ]
    with one_at_a_time, watch.watching(), intercepted(several, _look_through):
        found = capture(
            model,
            arguments,
            visit,
            layers=watch.place,
            target=score,
            allow_training=True,
            create_graph=attached,
            # Nothing is learned about the model, which this one around it would not outlive.
            rehearsal=Rehearsal((), layouts=_Unfolded()),
        )
    originals = {one.call: one.original.call for one in found.layers}
    return tuple(
        made[originals[call]] if call in originals else make(*2 * (watch.zeros(call),))
        for call in watch.calls
    )


class _Watch:
    """Sends the tensors of a layer through a place, and remembers which came from its last run.

    Args:
        layer: The layer.
        of_input: Whether its arguments are meant.
        attached: Whether the pass leaves it to others that tensors require grad.
    """

    def __init__(self, layer: nn.Module, of_input: bool, attached: bool) -> None:
        self.layer, self.of_input, self.attached = layer, of_input, attached
        self.place = nn.Identity()
        self.begin()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Runs of the layer from this thread are seen inside."""
        owner = threading.get_ident()

        def before(module: nn.Module, args: tuple[Any, ...]) -> Any:
            return self._passed(args) if threading.get_ident() == owner else None

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            return self._passed(output) if threading.get_ident() == owner else None

        # It stays for the backward pass, in which checkpointing runs layers again.
        handle = (
            self.layer.register_forward_pre_hook(before)
            if self.of_input
            else self.layer.register_forward_hook(after)
        )
        try:
            yield
        finally:
            handle.remove()

    def begin(self) -> None:
        """Says that a forward pass begins, maybe once more."""
        self.calls: list[int] = []  # of the place, one per tensor of the layer's last run
        self._kinds: dict[int, tuple[torch.Size, torch.dtype, torch.device]] = {}
        self._count = 0
        self._with_grad = self._ended = False

    def end(self) -> None:
        """Says that it is over.

        Raises:
            ValueError: If the layer was not run, or without gradients.
        """
        self._ended = True
        if not self._count:
            raise ValueError("layer: expected one that forward_func runs; it was not")
        if not self._with_grad:
            raise ValueError("layer: forward_func runs it without gradients")

    def zeros(self, call: int) -> Tensor:
        """Zeros like the tensor of a call."""
        shape, dtype, device = self._kinds[call]
        return torch.zeros(shape, dtype=dtype, device=device)

    def _passed(self, value: Any) -> Any:
        tensors = list(value) if isinstance(value, tuple | list) else [value]
        if not tensors or not all(map(_is_floating, tensors)):
            what = "positional arguments" if self.of_input else "output"
            kinds = ", ".join(str(getattr(one, "dtype", type(one).__name__)) for one in tensors)
            raise ValueError(f"layer: expected its {what} to be floating tensors, got ({kinds})")
        calls: dict[int, int] = {}
        for one in {id(one): one for one in tensors}.values():
            self._count += 1
            calls[id(one)] = self._count
            root = self.attached and torch.is_grad_enabled() and not one.requires_grad
            value = exchanged(
                value, one, self.place(one.detach().requires_grad_() if root else one)
            )
        if not self._ended:
            self.calls = [calls[id(one)] for one in tensors]
            self._kinds = {calls[id(one)]: (one.shape, one.dtype, one.device) for one in tensors}
            self._with_grad = torch.is_grad_enabled()
        return value


class _Program(nn.Module):
    """A callable as a module, whose parts are the modules it is seen to run, and the place."""

    call: Callable[..., Any]

    def __init__(self, forward_func: Callable[..., Tensor], watch: _Watch) -> None:
        super().__init__()
        self.watch, self.place, self.layer = watch, watch.place, watch.layer
        self.owners = nn.ModuleList(modules_of(forward_func))
        self.call = forward_func
        self.takes_some = bool(signature(forward_func).parameters)

    def forward(self, *arguments: Any) -> Any:
        """As the callable; one that takes nothing is given nothing."""
        self.watch.begin()
        return self.call(*arguments if self.takes_some else ())


class _AsItIs(Layout):
    def spatial(self, tensor: Tensor) -> Tensor:
        return tensor


class _Unfolded(KnownLayouts):
    """Takes every output for known, and leaves it as it is."""

    def __init__(self) -> None:
        super().__init__(known=True)

    def find(self, module: int, call: int, output: Tensor) -> Layout:
        return _AsItIs(0, (), (), None, (), None, (), (), ())


def _is_floating(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _look_through(wrapper: nn.Module, _: Forward) -> Forward:
    """A wrapper for several devices runs its module on one."""
    assert isinstance(wrapper.module, nn.Module)
    return wrapper.module


def _rooted(argument: Any) -> Any:
    """The argument with a graph that begins at it, if it is a tensor that has none yet."""
    if not isinstance(argument, Tensor) or argument.requires_grad:
        return argument
    with torch.inference_mode(False):
        copy = argument.detach().clone()
        return copy.requires_grad_(argument.is_floating_point())
