"""Follows what the axes of tensors stand for through every operation of a forward pass.

The tracer sees the few dozen primitive operations that all models come down to. What it does not
know has unknown axes, until a convolution or a residual says again what they are.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from camfuse.axes import (
    BATCH,
    LETTERS,
    UNKNOWN,
    Axes,
    Axis,
    combined,
    concatenated,
    is_unknown,
    located,
    padded,
    patches,
    plain,
    resampled,
    rolled,
    sliced,
    unknown,
    viewed,
    whole,
    without,
)
from camfuse.inputs import channel_axis, image_size
from camfuse.structures import tensors_in

_Found = Axes | None | list[Axes | None]
"""Axes of one result or of several; None for what is made of parameters and constants alone."""


class AxisTracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Knows the axes of every tensor that is made inside.

    Args:
        batch: Number of samples.

    Attributes:
        letters: The axes of an image: ``HW``, or ``W`` or ``DHW`` once that is known.
    """

    supports_higher_order_operators = True

    def __init__(self, batch: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.batch = batch
        self.letters = ""
        # By storage: it may be let go and its place taken by another.
        self._known: dict[int, tuple[weakref.ref[Any], dict[object, Axes]]] = {}

    def following(self, arguments: Any) -> AxisTracer:
        """Itself, to be entered, knowing the images among a model's arguments."""
        for one in tensors_in(arguments):
            self._note_image(one)
        return self

    def _note_image(self, tensor: Tensor) -> None:
        # Three axes may be [B, C, L] or tokens [B, N, C]; the first convolution says so.
        if tensor.ndim not in (4, 5) or len(tensor) != self.batch:
            return
        channels, letters = channel_axis(tensor.shape), LETTERS[2 - tensor.ndim :]
        self.letters = self.letters or letters
        axes = [whole(*one) for one in zip(letters, image_size(tensor), strict=True)]
        axes.insert(channels - 1, plain(tensor.shape[channels]))
        self._note(tensor, (whole(BATCH, self.batch), *axes))

    def axes_of(self, tensor: Tensor) -> Axes | None:
        """The axes of a tensor, None if it was made of parameters and constants alone."""
        if (place := _place(tensor)) is None:
            return unknown(tensor.shape)
        storage, key = place
        reference, known = self._known.get(storage._cdata, (None, {}))
        return known.get(key) if reference is not None and reference() is storage else None

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs ``func`` and notes the axes of what it returns."""
        kwargs = kwargs or {}
        # Before it runs: it may overwrite what it reads.
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        before = [(self.axes_of(one), one.shape) for one in tensors]
        result = func(*args, **kwargs)
        if isinstance(result, Tensor | list | tuple):
            call = _Call(self, func, args, kwargs, result, before)
            for one, axes in zip(call.results, call.found(), strict=True):
                if isinstance(one, Tensor):
                    self._note(one, axes)
        return result

    def _note(self, tensor: Tensor, axes: Axes | None) -> None:
        if (place := _place(tensor)) is None:
            return
        storage, key = place
        reference, known = self._known.get(storage._cdata, (None, {}))
        if reference is None or reference() is not storage:
            if axes is None:
                return
            number = storage._cdata
            known = {}

            def gone(reference: weakref.ref[Any]) -> None:
                if self._known.get(number, (None,))[0] is reference:
                    del self._known[number]

            self._known[number] = weakref.ref(storage, gone), known
        if axes is None:
            known.pop(key, None)
        else:
            known[key] = axes


def _place(tensor: Tensor) -> tuple[torch.UntypedStorage, object] | None:
    """The storage, and what part of it in which order."""
    if tensor.layout != torch.strided:
        return None
    try:
        storage = tensor.untyped_storage()
    except (RuntimeError, NotImplementedError):
        return None
    strides = tuple(s for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n != 1)
    return storage, (tensor.storage_offset(), tuple(tensor.shape), strides)


class _Call:
    """One operation, with its arguments by name."""

    def __init__(
        self,
        tracer: AxisTracer,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        before: Sequence[tuple[Axes | None, Sequence[int]]],
    ) -> None:
        self.tracer, self.func, self.args, self.kwargs = tracer, func, args, kwargs
        self.results = [result] if isinstance(result, Tensor) else list(result)
        self.before = before
        self.operands = [(axes, shape) for axes, shape in before if axes is not None]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first result."""
        return tuple(self.results[0].shape)

    def __getitem__(self, name: str) -> Any:
        """An argument by its name in the schema."""
        for i, argument in enumerate(self.func._schema.arguments):
            if argument.name == name:
                if i < len(self.args):
                    return self.args[i]
                return self.kwargs.get(name, argument.default_value)
        raise KeyError(name)

    def has(self, name: str) -> bool:
        """Whether the operation takes such an argument."""
        return any(argument.name == name for argument in self.func._schema.arguments)

    def axes(self, name: str) -> Axes:
        """The axes of an argument; those of parameters and constants are channels."""
        tensor = self[name]
        known = self.before_of(tensor)
        return tuple(plain(n) for n in tensor.shape) if known is None else known

    def before_of(self, tensor: Tensor) -> Axes | None:
        """What was known of an argument before the operation ran."""
        tensors = [one for one in tree_leaves((self.args, self.kwargs)) if isinstance(one, Tensor)]
        return next(
            axes for one, (axes, _) in zip(tensors, self.before, strict=True) if one is tensor
        )

    def found(self) -> list[Axes | None]:
        """The axes of every result."""
        name = getattr(getattr(self.func, "overloadpacket", None), "__name__", "")
        rule = _RULES.get(name)
        if name in _DEFINING or (self.operands and rule is not None):
            found = _RULES[name](self)
        elif not self.operands or name.startswith("new_") or name.endswith("_like"):
            found = [None] * len(self.results)
        elif name.startswith("_scaled_dot_product"):
            found = (*self.axes("query")[:-1], self.axes("value")[-1])
        elif torch.Tag.pointwise in getattr(self.func, "tags", ()):
            found = _element_wise(self)
        elif name and self.has("keepdim"):
            found = _reduced(self)
        else:
            found = [
                unknown(one.shape) if isinstance(one, Tensor) else None for one in self.results
            ]
        if not isinstance(found, list):
            found = [found, *[None] * (len(self.results) - 1)]
        return [
            axes if axes is None or (isinstance(one, Tensor) and len(axes) == one.ndim) else None
            for one, axes in zip(self.results, found, strict=True)
        ]


def _element_wise(call: _Call) -> _Found:
    return [combined(call.operands, one.shape) for one in call.results]


def _like_first(call: _Call) -> _Found:
    return combined(call.operands[:1], call.shape)


def _restrided(call: _Call) -> _Found:
    same = tuple(call["self"].shape) == call.shape
    return _like_first(call) if same else unknown(call.shape)


def _viewed(call: _Call) -> _Found:
    return viewed(call.axes("self"), call.shape)


def _permuted(call: _Call) -> _Found:
    axes = call.axes("self")
    return tuple(axes[place] for place in call["dims"])


def _transposed(call: _Call) -> _Found:
    axes = list(call.axes("self"))
    one, other = (call["dim0"], call["dim1"]) if call.has("dim0") else (0, -1)
    if axes:
        axes[one], axes[other] = axes[other], axes[one]
    return tuple(axes)


def _sliced(call: _Call) -> _Found:
    axes, size, place = call.axes("self"), call["self"].shape, call["dim"]
    place %= len(axes)
    start, stop, _ = slice(call["start"], call["end"]).indices(size[place])
    return sliced(axes, place, start, max(start, stop), call["step"])


def _selected(call: _Call) -> _Found:
    return without(call.axes("self"), [call["dim"]], keep=False, chosen=True)


def _unbound(call: _Call) -> _Found:
    one = without(call.axes("self"), [call["dim"]], keep=False, chosen=True)
    return [one] * len(call.results)


def _split(call: _Call) -> _Found:
    axes, found, start = call.axes("self"), list[Axes | None](), 0
    place = call["dim"] % len(axes)
    for one in call.results:
        stop = start + one.shape[place]
        found.append(sliced(axes, place, start, stop, 1))
        start = stop
    return found


def _reduced(call: _Call) -> _Found:
    axes = call.axes(call.func._schema.arguments[0].name)
    dim = call["dim"]
    places = (
        range(len(axes)) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    )
    if not axes:
        return ()
    one = without(axes, places, call["keepdim"])
    return [one] * len(call.results)


def _product(call: _Call) -> _Found:
    first, second = ("mat1", "mat2") if call.has("mat1") else ("batch1", "batch2")
    if not call.has(first):
        first, second = "self", "mat2"
    one, other = call.axes(first), call.axes(second)
    shared = [(one[:1], call.shape[:1]), (other[:1], call.shape[:1])] if len(one) == 3 else []
    return (*combined(shared, call.shape[:1] if shared else ()), one[-2], other[-1])


def _linear(call: _Call) -> _Found:
    return (*call.axes("input")[:-1], plain(call.shape[-1]))


def _convolved(call: _Call) -> _Found:
    shape, rank = call.shape, len(call.shape) - 2
    given = call["input"]
    axes = call.before_of(given)
    if axes is None or all(is_unknown(axis) or not axis for axis in axes[2:]):
        return _by_definition(call, axes, given.shape, rank)
    found = resampled(axes, shape, rank, call.tracer.letters)
    return (found[0], plain(shape[1]), *found[2:])


def _by_definition(call: _Call, axes: Axes | None, given: Sequence[int], rank: int) -> _Found:
    """A convolution of something unknown: it is made for images."""
    tracer, shape = call.tracer, call.shape
    tracer.letters = tracer.letters or (LETTERS[-rank:] if given[0] == tracer.batch else "")
    if len(tracer.letters) != rank or given[0] != tracer.batch or len(given) != rank + 2:
        return None if axes is None else unknown(shape)
    spatial = zip(tracer.letters, shape[2:], strict=True)
    return (
        whole(BATCH, shape[0]),
        plain(shape[1]),
        *(whole(letter, size) for letter, size in spatial),
    )


def _refolded(call: _Call) -> _Found:
    return _by_definition(call, call.operands[0][0], call.shape, 2)


def _pooled(call: _Call) -> _Found:
    name = call.func.overloadpacket.__name__
    rank = next(rank for rank in (1, 2, 3) if f"{rank}d" in name)
    found = resampled(call.axes(_first(call)), call.shape, rank, call.tracer.letters)
    return [found] * len(call.results)


def _shuffled(call: _Call) -> _Found:
    shape = call.shape
    axes = resampled(call.axes("self"), shape, 2, call.tracer.letters)
    return (*axes[:-3], plain(shape[-3]), *axes[-2:])


def _patched(call: _Call) -> _Found:
    axes, given, size = call.axes("self"), call["self"].shape, call["kernel_size"]
    stride, padding, dilation = call["stride"], call["padding"], call["dilation"]
    if len(given) != 4 or list(dilation) != [1, 1]:
        return unknown(call.shape)
    lengths = [n + 2 * p for n, p in zip(given[2:], padding, strict=True)]
    count = [(n - k) // s + 1 for n, k, s in zip(lengths, size, stride, strict=True)]
    covered = [k * m for k, m in zip(size, count, strict=True)]
    apart = list(size) == list(stride) and covered == list(given[2:])
    return patches(axes, size, count, apart=apart) or unknown(call.shape)


def _first(call: _Call) -> str:
    return str(call.func._schema.arguments[0].name)


def _padded(call: _Call) -> _Found:
    amounts = call["pad"] if call.has("pad") else call["padding"]
    pads = [(0, 0)] * len(call.shape)
    for i in range(len(amounts) // 2):
        pads[-1 - i] = (amounts[2 * i], amounts[2 * i + 1])
    return padded(call.axes("self"), pads)


def _concatenated(call: _Call) -> _Found:
    pieces = [
        (tuple(plain(n) for n in shape) if axes is None else axes, shape)
        for axes, shape in call.before
        if len(shape) == len(call.shape)
    ]
    return concatenated(pieces, call["dim"] % len(call.shape))


def _stacked(call: _Call) -> _Found:
    place = call["dim"] % len(call.shape)
    rest = [n for i, n in enumerate(call.shape) if i != place]
    axes = combined(call.operands, rest)
    return (*axes[:place], plain(call.shape[place]), *axes[place:])


def _repeated(call: _Call) -> _Found:
    axes, given = call.axes("self"), call["self"].shape
    axes = ((),) * (len(call.shape) - len(axes)) + axes
    given = (1,) * (len(call.shape) - len(given)) + tuple(given)
    if any(located(a) and n != m for a, n, m in zip(axes, given, call.shape, strict=True)):
        return unknown(call.shape)
    return tuple(
        a if n == m else plain(m, UNKNOWN if is_unknown(a) else "C")
        for a, n, m in zip(axes, given, call.shape, strict=True)
    )


def _rolled(call: _Call) -> _Found:
    axes = call.axes("self")
    if not call["dims"]:
        return unknown(call.shape)
    for shift, place in zip(call["shifts"], call["dims"], strict=True):
        axes = rolled(axes, place % len(axes), shift)
    return axes


def _flipped(call: _Call) -> _Found:
    axes = call.axes("self")
    return unknown(call.shape) if any(located(axes[place]) for place in call["dims"]) else axes


def _halved(call: _Call) -> _Found:
    axes, place = list(call.axes("self")), call["dim"]
    halved: Axis = plain(call.shape[place])
    return (
        unknown(call.shape)
        if located(axes[place])
        else (
            *axes[: place % len(axes)],
            halved,
            *axes[place % len(axes) + 1 :],
        )
    )


_Rule = Callable[[_Call], _Found]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(
        ("view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze", "flatten"),
        _viewed,
    ),
    **dict.fromkeys(
        ("expand", "clone", "detach", "alias", "_to_copy", "contiguous", "lift_fresh", "copy_"),
        _element_wise,
    ),
    **dict.fromkeys(("masked_fill", "masked_fill_", "hardswish", "hardswish_"), _element_wise),
    **dict.fromkeys(
        (
            "_softmax",
            "_safe_softmax",
            "_log_softmax",
            "native_layer_norm",
            "native_group_norm",
            "cumsum",
        ),
        _like_first,
    ),
    **dict.fromkeys(
        ("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_fused_rms_norm"),
        _like_first,
    ),
    **dict.fromkeys(
        ("_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "native_dropout"),
        _like_first,
    ),
    **dict.fromkeys(("_batch_norm_with_update", "_batch_norm_no_update", "fill_"), _like_first),
    **dict.fromkeys(("as_strided", "as_strided_"), _restrided),
    "permute": _permuted,
    **dict.fromkeys(("transpose", "t"), _transposed),
    "slice": _sliced,
    "select": _selected,
    "unbind": _unbound,
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    **dict.fromkeys(("mm", "addmm", "_addmm_activation", "bmm", "baddbmm"), _product),
    "linear": _linear,
    **dict.fromkeys(("convolution", "_convolution"), _convolved),
    "col2im": _refolded,
    "im2col": _patched,
    **dict.fromkeys(
        ("max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d", "avg_pool3d"),
        _pooled,
    ),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d"), _pooled),
    **dict.fromkeys(("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"), _pooled),
    **dict.fromkeys(("adaptive_max_pool2d", "adaptive_max_pool3d"), _pooled),
    **dict.fromkeys(("fractional_max_pool2d", "fractional_max_pool3d"), _pooled),
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"), _pooled),
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d"), _pooled),
    **dict.fromkeys(("_upsample_nearest_exact1d", "_upsample_nearest_exact2d"), _pooled),
    **dict.fromkeys(("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"), _pooled),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle", "channel_shuffle"), _shuffled),
    **dict.fromkeys(("constant_pad_nd", "reflection_pad1d", "reflection_pad2d"), _padded),
    **dict.fromkeys(("reflection_pad3d", "replication_pad1d", "replication_pad2d"), _padded),
    "replication_pad3d": _padded,
    "cat": _concatenated,
    "stack": _stacked,
    "repeat": _repeated,
    "roll": _rolled,
    "flip": _flipped,
    "glu": _halved,
}
# These say what their result is, whatever it was made of.
_DEFINING = frozenset({"convolution", "_convolution"})
