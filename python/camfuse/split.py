"""A batch within the memory there is: in one pass, in several, or refused with a reason."""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from camfuse.amounts import format_bytes
from camfuse.capture import capture
from camfuse.captured import Capture, Captured, Reshape, join
from camfuse.collect import MapCollector
from camfuse.inputs import Inputs, first_image, part_of_inputs, with_roots
from camfuse.layers import LayerSelection, unwrap
from camfuse.machine import available_memory
from camfuse.memory import (
    LiveBytes,
    MemoryPrediction,
    UnpredictableError,
    predict_memory,
    rehearse,
    with_holes,
)
from camfuse.methods import Method
from camfuse.methods.base import PassMethod, Scene
from camfuse.model_checks import check_model
from camfuse.preserve import release_spare_memory
from camfuse.targets import Target, count_targets, fixed, part_of_target
from camfuse.thinning import thin

# A pass that would need no more than this is not worth a look at the machine, nor one whose inputs
# leave room for so many times their size: over twice what the hungriest network tried needs
# (EfficientNet-B7).
_NEGLIGIBLE = 256 * 2**20
_FACTOR = 4096

# How often the maps of all samples are there while they are joined and laid out.
_WHILE_JOINING = 3


@dataclass(frozen=True, eq=False)
class Request:
    """Which maps are asked for; the fields are arguments of :func:`camfuse.layer_cams`."""

    model: nn.Module
    inputs: Inputs
    methods: Sequence[Method]
    layers: LayerSelection
    target: Target = None
    reshape: Reshape | None = None
    allow_training: bool = False
    create_graph: bool = False
    seed: int = 0
    thinning: Sequence[str] = ()
    batch_size: int = 32

    @property
    def batch(self) -> int:
        """Number of samples."""
        return first_image(self.inputs).shape[0]

    def answer(self, part: slice | None = None) -> tuple[MapCollector, Capture]:
        """One pass over all samples, or over some."""
        inputs, target = self.inputs, self.target
        if part is not None:
            inputs = part_of_inputs(inputs, self.batch, part)
            target = part_of_target(target, self.batch, part)
        collector = self.collector()
        rooted = collector.second_order and not self.create_graph
        found = capture(
            self.model,
            with_roots(inputs) if rooted else inputs,
            collector,
            layers=self.layers,
            target=collector.explained(target),
            reshape=self.reshape,
            allow_training=self.allow_training,
            create_graph=self.create_graph or collector.second_order,
            gradients=collector.gradients,
        )
        scores = found.scores.first(count_targets(target))
        found = replace(found, scores=scores if self.create_graph else scores.detached())
        for method in self.methods:
            if isinstance(method, PassMethod):
                collector.add(method, method.run(self._scene(inputs, target, found)))
        return collector, found

    def kept(self, found: Capture) -> list[Captured]:
        """The shown layers that are left when they are thinned out."""
        return thin([layer for layer in found.layers if layer.shown], self.thinning)

    def collector(self) -> MapCollector:
        """What collects the maps of a pass."""
        return MapCollector(
            self.methods, self.seed, count_targets(self.target), keep_graph=self.create_graph
        )

    def _scene(self, inputs: Inputs, target: Target, found: Capture) -> Scene:
        return Scene(
            model=unwrap(self.model),
            inputs=inputs,
            target=fixed(target, found.scores.indices),
            selection=self.layers,
            reshape=self.reshape,
            allow_training=self.allow_training,
            seed=self.seed,
            batch_size=self.batch_size,
            layers=list(dict.fromkeys(layer.original for layer in self.kept(found))),
            scores=found.scores,
            batch=found.batch,
        )


def collect_within(request: Request, limit: int | None) -> tuple[MapCollector, Capture]:
    """The maps, from passes that are predicted to need at most ``limit`` bytes each.

    Args:
        request: What is asked for.
        limit: Bytes besides the model and its inputs; None for what the machine has left, in one
            pass.

    Raises:
        MemoryError: If not even one sample fits, or all should and do not; before any work where
            the model can be rehearsed, else after the first sample.
        ValueError: If the graph is to be kept, which parts of a batch do not share.
    """
    if limit is None:
        with fitting(request):
            return request.answer()
    if request.create_graph:
        raise ValueError(
            "max_memory: expected None with create_graph=True, for the graphs of all parts would "
            "stay in memory until the caller's backward pass"
        )
    check_model(unwrap(request.model), request.allow_training)
    history, batch = _history_of(request), request.batch
    parts: list[tuple[MapCollector, Capture]] = []
    if history.prediction is None or history.prediction.batch < batch:
        try:
            history.prediction = _predict(request)
        except UnpredictableError:
            part, history.prediction = _first_sample(request)
            parts.append(part)
            _fitting_size(request, history, batch, limit)
    done = len(parts)
    while done < batch:
        size = _fitting_size(request, history, batch - done, limit)
        parts.append(request.answer(slice(done, done + size)))
        done += size
        history.fits = max(history.fits, size)
        if done < batch:
            release_spare_memory()  # or the holes of each part would add to those of the next
    if len(parts) == 1:
        return parts[0]
    whole = join([found for _, found in parts])
    collector = request.collector()
    collector.take_over(parts, whole)
    return collector, whole


@contextmanager
def fitting(request: Request) -> Iterator[None]:
    """For one pass over the whole batch: refused where it needs more than the machine has left.

    Costs next to nothing unless that is plausible and no such pass has been seen to fit.

    Raises:
        MemoryError: If the tensors alone need more.
    """
    history = _history_of(request)
    if request.batch > history.fits:
        _check_machine(request)
    yield
    history.fits = max(history.fits, request.batch)


@dataclass
class _History:
    """What is known about requests that differ in the size of their batch alone.

    Attributes:
        fits: Samples of the largest pass that went well.
        prediction: For the largest batch so far.
    """

    fits: int = 0
    prediction: MemoryPrediction | None = None


_histories: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, _History]] = (
    weakref.WeakKeyDictionary()
)


def _history_of(request: Request) -> _History:
    model, batch, chosen = unwrap(request.model), request.batch, request.layers
    if not isinstance(model, nn.Module):
        return _History()  # capture() will say so
    several = chosen if isinstance(chosen, list | tuple) else [chosen]
    key = (
        tuple(
            (one.shape[1:] if one.ndim and len(one) == batch else one.shape, one.dtype, one.device)
            for one in _tensors(request)
        ),
        tuple(one if isinstance(one, str) else id(one) for one in several),
        tuple(method.name for method in request.methods),
        count_targets(request.target),
        id(request.reshape),
        request.create_graph,
    )
    return _histories.setdefault(model, {}).setdefault(key, _History())


def _fitting_size(request: Request, history: _History, samples: int, limit: int) -> int:
    """How many of ``samples`` the next pass may take."""
    prediction, batch = history.prediction, request.batch
    assert prediction is not None
    maps = prediction.maps_per_sample

    def needed(size: int) -> int:
        """By the pass, and by the maps of all samples that it does not see."""
        return prediction.needed(size, first=not history.fits) + maps * (batch - size)

    size = bisect_right(range(1, samples + 1), limit, key=needed)
    alone = prediction.needed(1, first=not history.fits)
    joined = _WHILE_JOINING * maps * batch
    if alone > limit:
        raise MemoryError(
            f"max_memory: one sample at a time needs {format_bytes(alone)} besides the model and "
            f"its inputs, but {format_bytes(limit)} are allowed; fewer layers, a later first layer "
            "or smaller inputs need less"
        )
    if size == 0 or joined > limit:
        total = format_bytes(max(joined, needed(1)))
        raise MemoryError(
            f"max_memory: the maps of all samples ({batch}), and a pass over one, need {total}, "
            f"but {format_bytes(limit)} are allowed; fewer samples, layers, methods or targets "
            "need less"
        )
    if size < samples == batch:
        _check_independence(request)
    return size


def _check_independence(request: Request) -> None:
    if any(module.training for module in request.model.modules()):
        raise MemoryError(
            "max_memory: the batch needs more than is allowed and cannot be split, for in training "
            "mode a sample's maps depend on the other samples; call model.eval()"
        )


def _predict(request: Request) -> MemoryPrediction:
    return predict_memory(
        request.model,
        request.inputs,
        method=[method.name for method in request.methods],
        layers=request.layers,
        targets=count_targets(request.target),
        reshape=request.reshape,
    )


def _first_sample(request: Request) -> tuple[tuple[MapCollector, Capture], MemoryPrediction]:
    """The first sample's maps, and what they needed: for models that cannot be rehearsed."""
    _check_independence(request)
    with LiveBytes() as live:
        collector, found = request.answer(slice(0, 1))
    each, batch = with_holes(live.peak), request.batch
    prediction = MemoryPrediction(
        0, batch, batch * each, batch * each, each, each, collector.nbytes
    )
    return (collector, found), prediction


def _check_machine(request: Request) -> None:
    bound = _FACTOR * sum(one.numel() * one.element_size() for one in _tensors(request))
    if bound < _NEGLIGIBLE:
        return
    left = available_memory(first_image(request.inputs).device)
    if left is None or bound < left:
        return
    with suppress(UnpredictableError):
        (needed,), _ = rehearse(
            request.model,
            request.inputs,
            request.batch,
            request.methods,
            request.layers,
            count_targets(request.target),
            request.reshape,
            passes=1,
        )
        if needed > left:
            samples = f"{request.batch} sample{'s' * (request.batch > 1)}"
            raise MemoryError(
                f"inputs: maps of {samples} need {format_bytes(needed)} besides the model and its "
                f"inputs, but {format_bytes(left)} are left; max_memory= runs a batch in parts, "
                "and smaller inputs, fewer layers or a later first layer need less"
            )


def _tensors(request: Request) -> list[Tensor]:
    return [one for one in tree_leaves(request.inputs) if isinstance(one, Tensor)]
