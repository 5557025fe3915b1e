"""How much memory the maps of a model will need, found without allocating it.

A pass is rehearsed on fake tensors, which have shapes and lifetimes but no elements. What they
would occupy is counted as it would come and go: activations and copies of them, what autograd
saves, and the gradients on their way back.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from camfuse.capture import Rehearsal, capture
from camfuse.captured import Reshape
from camfuse.collect import MapCollector
from camfuse.inputs import Inputs, first_image
from camfuse.layers import LayerSelection, select_layers, unwrap
from camfuse.methods import Method, find_methods
from camfuse.model_checks import check_model
from camfuse.preserve import kept_attributes, kept_caches, state_tensors
from camfuse.targets import Each, Target
from camfuse.thinning import split_thinning


@dataclass(frozen=True)
class MemoryPrediction:
    """Bytes that :func:`camfuse.layer_cams` needs for a batch, besides the model and its inputs.

    Tensors are counted exactly; an eighth is added for the holes that the C library leaves between
    them. What libraries allocate for themselves is not included: seen are 20 to 40 MB, once per
    process.

    Attributes:
        model: Parameters and buffers.
        batch: Number of samples.
        first: Of the first pass of a model, which copies every activation.
        later: Of passes after it, which copy only what the model overwrites.
        first_per_sample: What each further sample adds to ``first``.
        later_per_sample: What each further sample adds to ``later``.
        maps_per_sample: What each sample's maps keep occupied until all are there.
    """

    model: int
    batch: int
    first: int
    later: int
    first_per_sample: int
    later_per_sample: int
    maps_per_sample: int

    def needed(self, batch: int, *, first: bool) -> int:
        """Bytes that a pass over ``batch`` samples needs."""
        whole, per_sample = (
            (self.first, self.first_per_sample) if first else (self.later, self.later_per_sample)
        )
        return max(0, whole + (batch - self.batch) * per_sample)


class UnpredictableError(ValueError):
    """A model whose code needs the values of tensors, and so cannot be rehearsed."""


def predict_memory(
    model: nn.Module,
    inputs: Inputs,
    *,
    method: str | Sequence[str] = "gradcam",
    layers: LayerSelection = "leaf",
    targets: int = 1,
    reshape: Reshape | None = None,
) -> MemoryPrediction:
    """What :func:`camfuse.layer_cams` would need, without the memory or the time of its passes.

    The model's code runs on fake tensors, its hooks included; the model is left as it was. A
    function among the targets is not run: what it needs itself is not included.

    Args:
        model: As for :func:`camfuse.layer_cams`; may be in training mode.
        inputs: Likewise; only shapes, strides and dtypes matter.
        method: Likewise.
        layers: Likewise.
        targets: How many targets are explained.
        reshape: Likewise.

    Raises:
        ValueError: If an argument does not fit, or the model cannot be rehearsed, as where its code
            depends on the values of tensors.
    """
    methods = find_methods(method)
    layers, _ = split_thinning(layers)
    if isinstance(targets, bool) or not isinstance(targets, int) or targets < 1:
        raise ValueError(f"targets: expected a number of targets, got {targets!r}")
    batch = first_image(inputs).shape[0]
    other = 2 if batch == 1 else 1
    peaks, maps = rehearse(model, inputs, batch, methods, layers, targets, reshape)
    of_other = [0, 0]
    try:
        of_other, _ = rehearse(model, inputs, other, methods, layers, targets, reshape)
    except UnpredictableError:  # a model may be made for one size of batch
        other = 0
    # Rounded up. Between two sizes of batch a peak, the highest of several lines, lies below.
    first_per_sample, later_per_sample = (
        -((with_holes(there) - with_holes(here)) // (batch - other))
        for here, there in zip(peaks, of_other, strict=True)
    )
    return MemoryPrediction(
        model=_bytes_of(state_tensors(tuple(unwrap(model).modules()))),
        batch=batch,
        first=with_holes(peaks[0]),
        later=with_holes(peaks[1]),
        first_per_sample=first_per_sample,
        later_per_sample=later_per_sample,
        maps_per_sample=-(-maps // batch),
    )


def rehearse(
    model: nn.Module,
    inputs: Inputs,
    batch: int,
    methods: Sequence[Method],
    layers: LayerSelection,
    targets: int,
    reshape: Reshape | None,
    *,
    passes: int = 2,
) -> tuple[list[int], int]:
    """What the tensors of passes over ``batch`` samples like those of ``inputs`` occupy at most.

    Args:
        model: As for :func:`predict_memory`, likewise the rest.
        inputs: Any number of samples.
        batch: How many samples to rehearse.
        methods: The methods.
        layers: The selection.
        targets: How many.
        reshape: For unknown layouts.
        passes: How many, the first one included.

    Returns:
        The peak of each pass, and the bytes of all maps.

    Raises:
        UnpredictableError: If the model cannot be rehearsed.
        ValueError: If the model or the selection is none.
    """
    model = unwrap(model)
    check_model(model, allow_training=True)
    select_layers(model, layers)
    modules = tuple(model.modules())
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    samples = first_image(inputs).shape[0]
    with fake:
        stand_ins = tree_map(lambda one: _stand_in(one, samples, batch), inputs)
    # Copies that every pass makes before it begins.
    buffers = [one for module in modules for one in module._buffers.values()]
    copied = {id(one): one for one in (*tree_leaves(stand_ins), *buffers)}.values()
    copies = sum(one.numel() * one.element_size() for one in copied if isinstance(one, Tensor))
    peaks, maps = [], 0
    live = LiveBytes()
    rehearsal = Rehearsal((fake, live))
    for _ in range(passes):
        collector = MapCollector(methods, 0, targets)
        live.reset()
        try:
            with kept_attributes(modules), kept_caches():
                capture(
                    model,
                    stand_ins,
                    collector,
                    layers=layers,
                    target=_some_score(batch, targets * collector.variants),
                    reshape=reshape,
                    allow_training=True,
                    create_graph=collector.second_order,
                    gradients=collector.gradients,
                    rehearsal=rehearsal,
                )
        except Exception as error:
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise UnpredictableError(
                f"model: its memory cannot be predicted on tensors without elements: {reason}"
            ) from error
        maps = collector.nbytes
        peaks.append(copies + live.peak)
    return peaks, maps


def with_holes(tensors: int) -> int:
    """What tensors of so many bytes occupy at most, with the holes that malloc leaves among them.

    Seen are 0 to 17 percent at the peak; without holes (a small M_MMAP_THRESHOLD) under 1.
    """
    return tensors + tensors // 8


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that operations allocate inside, now and at most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sizes: dict[int, tuple[weakref.ref[Any], int]] = {}
        self.now = self.peak = 0

    def reset(self) -> None:
        """Forgets what has been allocated so far."""
        self._sizes.clear()
        self.now = self.peak = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs ``func`` and notes which storages are new."""
        result = func(*args, **(kwargs or {}))
        # Views and in-place operations allocate nothing.
        if any(one.alias_info is None for one in func._schema.returns):  # type: ignore[attr-defined]
            for one in tree_leaves(result):
                if isinstance(one, Tensor) and one.layout == torch.strided:
                    self._add(one.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._sizes:
            return

        def gone(reference: weakref.ref[Any]) -> None:
            if self._sizes.get(key, (None, 0))[0] is reference:
                del self._sizes[key]
                self.now -= size

        self._sizes[key] = weakref.ref(storage, gone), size
        self.now += size
        self.peak = max(self.peak, self.now)


def _stand_in(value: Any, samples: int, batch: int) -> Any:
    """A fake tensor like ``value``, for ``batch`` samples if it has ``samples``."""
    if not isinstance(value, Tensor):
        return value
    shape = [batch, *value.shape[1:]] if value.ndim and len(value) == samples else value.shape
    with torch.inference_mode(False):
        return torch.empty_strided(shape, value.stride(), dtype=value.dtype, device=value.device)


def _some_score(batch: int, targets: int) -> Target:
    """As many targets as wanted, each a score that depends on all of the output."""

    def score(output: Any) -> Tensor:
        leaves = [one for one in tree_leaves(output) if isinstance(one, Tensor) and one.ndim]
        used = [one.reshape(len(one), -1)[:, 0].sum() for one in leaves if one.requires_grad]
        if not used:
            raise ValueError("its output holds no tensor that depends on the layers")
        return torch.stack(used).sum().expand(batch)

    return Each([score] * targets)


def _bytes_of(values: Sequence[Any]) -> int:
    """Of the tensors among ``values``; what is shared counts once."""
    storages = {
        one.untyped_storage()._cdata: one.untyped_storage().nbytes()
        for one in values
        if isinstance(one, Tensor)
    }
    return sum(storages.values())
