"""A model run again with one layer's output replaced, computing only what follows that layer.

The modules that had finished before the layer was called answer with what they returned for the
same sample; the code between modules runs on those answers. That this is the same computation is
not assumed but shown on the first batch; where it is not, everything runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from camfuse.intercept import Forward, intercepted

Arguments = Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]
"""From n to what the model is called with for n copies of one sample; tensors may be views."""

_Key = tuple[nn.Module | None, int]  # a module and the number of its call, from 1
_INPUTS: _Key = (None, 0)

# How far two runs may lie apart, relative to the largest magnitude: batches of other sizes take
# other kernels, which round differently.
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 3e-2}


class Replay:
    """Runs a model with the output of one call of one layer replaced.

    Leave the model as it is between :meth:`record` and the last :meth:`run`, and gradients off.

    Args:
        model: The model.
        module: The layer.
        call: Which of the layer's calls, from 1.

    Attributes:
        refusal: Why everything runs, or None as long as the shorter way is taken.
        as_views: Whether what is remembered is lent to all copies as a view, but for what the model
            overwrites; else everything is copied.
    """

    def __init__(self, model: nn.Module, module: nn.Module, call: int = 1) -> None:
        self.refusal: str | None = None
        self._model, self._site = model, (module, call)
        self._modules = tuple(model.modules())
        self._overwritten: set[_Key] | None = None
        self._proven = 0  # the largest number of copies for which both ways were compared
        self.as_views = True
        self._arguments: Arguments
        self._tape: _Tape

    def record(self, arguments: Arguments) -> tuple[Any, Tensor]:
        """Runs the model once on the sample that later runs are about.

        Returns:
            The model's output, and a copy of the layer's.

        Raises:
            ValueError: If the call never comes, or does not return one tensor.
        """
        self._arguments = arguments
        output, self._tape = self._watch(self._overwritten)
        found = self._tape.overwritten()
        if self._overwritten is not None and not found <= self._overwritten:
            output, self._tape = self._watch(found | self._overwritten)
        self._overwritten = found | (self._overwritten or set())
        self._tape.let_go()
        return output, self._tape.site_output

    def run(self, activation: Tensor) -> Any:
        """The model's output for n copies of the recorded sample.

        Args:
            activation: What the layer returns instead ``[n, ...]``. The model may overwrite it.
        """
        if self.refusal is None and len(activation) <= self._proven:
            return self._short(activation)
        if self.refusal is not None:
            return self._full(activation)
        spare = activation.clone()
        expected = self._full(activation)
        self._prove(spare, expected)
        return expected

    def _watch(self, overwritten: set[_Key] | None) -> tuple[Any, _Tape]:
        tape = _Tape(self._site, overwritten)
        args, kwargs = tape.note(_INPUTS, copied(self._arguments(1)))
        with intercepted(self._modules, tape.listen):
            output = self._model(*args, **kwargs)
        tape.check()
        return output, tape

    def _full(self, activation: Tensor) -> Any:
        player = _Player(self._site, {}, lambda key, one: one, activation)
        return self._play(player, copied(self._arguments(len(activation))))

    def _short(self, activation: Tensor) -> Any:
        copies = len(activation)

        def given(key: _Key, recorded: Any) -> Any:
            fresh = not self.as_views or key in (self._overwritten or ())
            return copied(recorded) if fresh else recorded

        def answer(key: _Key, recorded: Any) -> Any:
            return given(key, tree_map(lambda one: _repeated(one, copies), recorded))

        player = _Player(self._site, self._tape.records, answer, activation)
        return self._play(player, given(_INPUTS, self._arguments(copies)))

    def _play(self, player: _Player, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
        args, kwargs = arguments
        with intercepted(self._modules, player.answer):
            return self._model(*args, **kwargs)

    def _prove(self, activation: Tensor, expected: Any) -> None:
        """Compares both ways: first with views of what was recorded, then with copies."""
        why = ""
        for as_views in (True, False):
            self.as_views &= as_views
            try:
                same = same_outputs(self._short(activation.clone()), expected)
            except Exception as error:  # whatever user code does with what it did not expect
                why = f"raises {type(error).__name__}"
                continue
            if same:
                self._proven = len(activation)
                return
            why = "gives another output"
        self.refusal = f"computing only what follows the layer {why}"


@dataclass(frozen=True)
class _Record:
    """What a finished call returned, which modules were called inside it, and who may know."""

    output: Any
    inner: Counter[nn.Module]
    versions: list[tuple[Tensor, int]]


class _Tape:
    """Listens to one pass until the site's call."""

    def __init__(self, site: _Key, overwritten: set[_Key] | None) -> None:
        self.site = site
        self.records: dict[_Key, _Record] = {}
        self._expected = overwritten  # None: not known yet, so that all may be
        self._calls: list[nn.Module] = []
        self._counts: Counter[nn.Module] = Counter()
        self._reached = False
        self._site_output: Any = None

    @property
    def site_output(self) -> Tensor:
        output: Tensor = self._site_output
        return output

    def listen(self, module: nn.Module, forward: Forward) -> Forward:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._counts[module] += 1
            self._calls.append(module)
            if self._reached:
                return forward(*args, **kwargs)
            key = module, self._counts[module]
            self._reached = key == self.site
            calls, finished = len(self._calls), len(self.records)
            output = forward(*args, **kwargs)
            inner = Counter(self._calls[calls:])
            if key == self.site:
                self._site_output = copied(output)
                self.records[key] = _Record(None, inner, [])
            elif not self._reached:
                for inside in list(self.records)[finished:]:
                    del self.records[inside]
                self.note(key, output, inner)
            return output

        return call

    def note(self, key: _Key, output: Any, inner: Counter[nn.Module] | None = None) -> Any:
        in_danger = self._expected is None or key in self._expected
        tensors = [one for one in tree_leaves(output) if isinstance(one, Tensor)]
        versions = [(one, one._version) for one in tensors if not one.is_inference()]
        kept = copied(output) if in_danger and key != _INPUTS else output
        self.records[key] = _Record(kept, inner or Counter(), versions)
        return output

    def check(self) -> None:
        module, call = self.site
        kind = type(module).__name__
        if not self._reached:
            raise ValueError(f"layer: call {call} of this {kind} never comes")
        if not isinstance(self._site_output, Tensor):
            raise ValueError(
                f"layer: expected one tensor from this {kind}, got "
                f"{type(self._site_output).__name__}"
            )

    def overwritten(self) -> set[_Key]:
        """Whose outputs somebody overwrote after they had been returned."""
        return {
            key
            for key, record in self.records.items()
            if any(tensor._version != version for tensor, version in record.versions)
        }

    def let_go(self) -> None:
        for record in self.records.values():
            record.versions.clear()


class _Player:
    """Answers for the site and for what had finished before it; all others compute."""

    def __init__(
        self,
        site: _Key,
        records: dict[_Key, _Record],
        recall: Callable[[_Key, Any], Any],
        activation: Tensor,
    ) -> None:
        self._site, self._records, self._recall = site, records, recall
        self._activation = activation
        self._counts: Counter[nn.Module] = Counter()

    def answer(self, module: nn.Module, forward: Forward) -> Forward:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._counts[module] += 1
            key = module, self._counts[module]
            record = self._records.get(key)
            if record is not None:
                self._counts.update(record.inner)
            if key == self._site:
                if record is None:
                    forward(*args, **kwargs)  # for what it does besides, as the calls inside count
                return self._activation
            return forward(*args, **kwargs) if record is None else self._recall(key, record.output)

        return call


def same_outputs(found: Any, expected: Any) -> bool:
    """Whether two outputs of a model are the same but for rounding."""
    ours, our_shape = tree_flatten(found)
    theirs, their_shape = tree_flatten(expected)
    return our_shape == their_shape and all(map(_same, ours, theirs))


def _same(found: Any, expected: Any) -> bool:
    if not isinstance(found, Tensor) or not isinstance(expected, Tensor):
        return type(found) is type(expected) and bool(found == expected)
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if not found.dtype.is_floating_point or not found.numel():
        return torch.equal(found, expected)
    finite = expected.isfinite()
    if not torch.equal(found.isfinite(), finite):
        return False
    if not torch.equal(found[~finite].nan_to_num(), expected[~finite].nan_to_num()):
        return False
    scale = float(expected[finite].abs().amax()) if finite.any() else 0.0
    limit = _TOLERANCE.get(found.dtype, 0.0) * scale
    return bool(((found - expected)[finite].abs() <= limit).all())


def _repeated(value: Any, copies: int) -> Any:
    """What one sample gave, for several copies of it; left alone if it has no batch axis."""
    if isinstance(value, Tensor) and value.ndim and len(value) == 1:
        return value.expand(copies, *value.shape[1:])
    return value


def copied(tree: Any) -> Any:
    """The same structure with copies of its tensors."""
    return tree_map(lambda one: one.clone() if isinstance(one, Tensor) else one, tree)
