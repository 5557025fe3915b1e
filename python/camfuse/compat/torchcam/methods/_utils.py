"""Passes that an extractor runs itself, and the layer that it finds by one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from camfuse.perturbation import passes
from camfuse.preserve import (
    borrowed_buffers,
    eager,
    evaluating,
    frozen,
    kept_attributes,
    one_at_a_time,
    plain_attention,
    random_state,
    state_tensors,
)

__all__ = ["locate_candidate_layer"]


@contextlib.contextmanager
def untouched(model: nn.Module, *, frozen_too: bool = False) -> Iterator[None]:
    """A pass of our own inside leaves the model and random generators as they were.

    Args:
        model: In whatever mode it is.
        frozen_too: Whether its parameters require no grad inside.
    """
    modules = tuple(model.modules())
    with contextlib.ExitStack() as stack:
        stack.enter_context(one_at_a_time)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(plain_attention(modules))
        stack.enter_context(random_state({one.device for one in state_tensors(modules)}))
        stack.enter_context(eager(modules))
        stack.enter_context(kept_attributes(modules))
        if frozen_too:
            stack.enter_context(frozen(modules))
        stack.enter_context(borrowed_buffers(modules))
        yield


def locate_candidate_layer(
    mod: nn.Module, input_shape: tuple[int, ...] = (3, 224, 224)
) -> str | None:
    """The last module, in order of execution, whose output has positions.

    It takes a pass over zeros, in eval mode, which leaves the model as it was.

    Args:
        mod: The model.
        input_shape: Of one sample.

    Returns:
        Its name; None if no output has as many axes as the input, and more than one position.
    """
    found: list[str] = []
    floating = (one for one in mod.parameters() if one.is_floating_point())
    like = next(floating, torch.zeros(()))
    zeros = like.new_zeros((1, *input_shape), requires_grad=False)

    def note(name: str, output: object) -> None:
        fits = isinstance(output, Tensor) and output.ndim == zeros.ndim
        if fits and any(size != 1 for size in output.shape[2:]):  # type: ignore[attr-defined]
            found.append(name)

    with contextlib.ExitStack() as stack:
        stack.enter_context(evaluating(tuple(mod.modules())))
        stack.enter_context(passes(mod, zeros, lambda copies: ((zeros,), {}), shorter=False))
        for name, module in mod.named_modules():
            handle = module.register_forward_hook(
                lambda module, args, output, name=name: note(name, output)
            )
            stack.callback(handle.remove)
        mod(zeros)
    return found[-1] if found else None
