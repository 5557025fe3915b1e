"""A model's parameters drawn anew, module by module, in the order in which modules run."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from camfuse.inputs import Inputs, call_arguments
from camfuse.layers import unwrap
from camfuse.preserve import eager, one_at_a_time, plain_attention

# What is learned although it is no parameter: statistics, and all of a frozen normalization.
_FRESH = {"running_mean": 0.0, "running_var": 1.0}
_LEARNED_BUFFERS = (*_FRESH, "weight", "bias")


class RandomCopy:
    """A deep copy of a model whose learned numbers can be drawn anew, and given back.

    Args:
        model: The model; the copy shares nothing with it.
        seed: Of all draws.

    Attributes:
        model: The copy, unwrapped.

    Raises:
        ValueError: If the model cannot be copied.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        model = unwrap(model)
        model = getattr(model, "_orig_mod", model)  # of a compiled one
        try:
            with torch.inference_mode(False):  # whose tensors could not be differentiated
                self.model: nn.Module = copy.deepcopy(model)
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"model: expected one that copy.deepcopy() can copy, to be drawn anew: {reason}"
            ) from error
        self._originals = dict(model.named_modules())
        self._modules = dict(self.model.named_modules())
        generator = torch.Generator().manual_seed(seed)
        seeds = torch.randint(2**31, (len(self._modules), 2), generator=generator).tolist()
        self._seeds = dict(zip(self._modules, seeds, strict=True))  # however they are grouped

    def stages(self, inputs: Inputs, count: int | None) -> list[list[str]]:
        """Names of modules, from the last one that runs to the first, in groups.

        Args:
            inputs: What the copy runs on once.
            count: At most so many groups, of about as many units each; None for one per unit.

        Raises:
            ValueError: If the model has no parameters.
        """
        found = units(self.model, inputs)[::-1]
        if not found:
            raise ValueError("model: expected one with parameters")
        parts = min(count or len(found), len(found))
        edges = [len(found) * i // parts for i in range(parts + 1)]
        return [list(itertools.chain(*found[a:b])) for a, b in itertools.pairwise(edges)]

    def redraw(self, names: Sequence[str], *, second: bool = False) -> None:
        """Draws modules anew, always the same numbers, or a ``second`` set of them."""
        for name in names:
            redraw(self._modules[name], self._seeds[name][second])

    @torch.no_grad()
    def restore(self, names: Sequence[str]) -> None:
        """Gives modules back what the original holds."""
        for name in names:
            source = _learned(self._originals[name])
            for key, tensor in _learned(self._modules[name]).items():
                tensor.copy_(source[key])


@torch.no_grad()
def units(model: nn.Module, inputs: Inputs) -> list[list[str]]:
    """Names of the modules that hold learned numbers, in the order in which they run.

    One that runs several times has the place of its last run. One that never runs by itself, such
    as a projection whose weight its parent uses, goes with the parent that does.

    Args:
        model: It runs once.
        inputs: What it runs on.
    """
    runs: dict[nn.Module, int] = {}
    counter = itertools.count()

    def remember(module: nn.Module, _: object) -> None:
        runs[module] = next(counter)

    modules = tuple(model.modules())
    handles = [one.register_forward_pre_hook(remember) for one in modules]
    try:
        positional, keywords = call_arguments(model, inputs, create_graph=False)
        # Neither a compiled graph nor attention's fast path would run what is inside.
        with eager(modules), plain_attention(modules):
            model(*positional, **keywords)
    finally:
        for handle in handles:
            handle.remove()
    by_name = dict(model.named_modules())
    groups: dict[str, list[str]] = {}
    for name, module in by_name.items():
        if _learned(module):
            place = name
            while by_name[place] not in runs and place:
                place = place.rpartition(".")[0]
            groups.setdefault(place, []).append(name)
    return [groups[name] for name in sorted(groups, key=lambda name: runs.get(by_name[name], -1))]


@torch.no_grad()
def redraw(module: nn.Module, seed: int) -> None:
    """Draws a module's own learned numbers anew, the same ones on every device.

    By its ``reset_parameters()``, if it has one and no children with parameters. What is left is
    drawn from a normal distribution with the mean and standard deviation of what it replaces;
    running statistics begin anew at 0 and 1.
    """
    learned = _learned(module)
    # Seeds the CPU's generator alone: that of a GPU would not be restored.
    with one_at_a_time, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        own = hasattr(module, "reset_parameters") and not any(
            True for child in module.children() for _ in child.parameters()
        )
        drawn = _reset(module, learned) if own else {}
        for name, old in learned.items():
            new = drawn.get(name)
            if new is None or bool(new.isnan().any()):
                new = _like(name, old.detach().cpu().float())
            old.copy_(new)


def _reset(module: nn.Module, learned: dict[str, Tensor]) -> dict[str, Tensor]:
    """What ``reset_parameters()`` makes of them, in f32 on the CPU; NaN where it leaves them."""
    parameters, buffers = dict(module._parameters), dict(module._buffers)

    def blank(name: str, tensor: Tensor | None) -> Tensor | None:
        if tensor is None or name not in learned:
            return None if tensor is None else tensor.detach().clone()
        return torch.full(tensor.shape, torch.nan, device="cpu")

    try:
        for name, one in parameters.items():
            empty = blank(name, one)
            module._parameters[name] = None if empty is None else nn.Parameter(empty, False)
        for name, buffer in buffers.items():
            module._buffers[name] = blank(name, buffer)
        module.reset_parameters()  # type: ignore[operator]
        made = {**module._parameters, **module._buffers}
    finally:
        module._parameters.clear()
        module._parameters.update(parameters)
        module._buffers.clear()
        module._buffers.update(buffers)
    return {name: tensor for name in learned if (tensor := made[name]) is not None}


def _like(name: str, old: Tensor) -> Tensor:
    if name in _FRESH:
        return torch.full_like(old, _FRESH[name])
    return torch.randn(old.shape, device="cpu") * old.std(correction=0) + old.mean()


def _learned(module: nn.Module) -> dict[str, Tensor]:
    buffers = {name: one for name, one in module._buffers.items() if name in _LEARNED_BUFFERS}
    held = {**module._parameters, **buffers}
    return {
        name: one
        for name, one in held.items()
        if one is not None and one.is_floating_point() and one.numel()
    }
