"""One pass: activation and gradient of every selected layer, handed over once both are known.

A forward hook remembers each output (or a copy, where a later module overwrites it); a tensor hook
receives its gradient during the backward pass and gives the pair to a visitor. Nothing before the
first selected layer is recorded by autograd, and the model is left as it was found.
"""

from __future__ import annotations

import contextlib
import math
import threading
import traceback
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from camfuse.axis_tracer import AxisTracer
from camfuse.captured import UNREACHED, Capture, Captured, Reshape, Visitor
from camfuse.inputs import Inputs, call_arguments, first_image, image_size
from camfuse.known_layouts import KnownLayouts, UnfamiliarError, layouts_of
from camfuse.layers import LayerSelection, Selection, repeats_input, select_layers, unwrap
from camfuse.layouts import Layout
from camfuse.model_checks import check_devices, check_model
from camfuse.preserve import (
    borrowed_buffers,
    eager,
    frozen,
    one_at_a_time,
    one_thread,
    plain_attention,
    random_state,
    release_spare_memory,
    state_tensors,
)
from camfuse.reshapes import CheckedReshape
from camfuse.roots import graft
from camfuse.stack import Skipped
from camfuse.structures import exchanged, maps_in, tensors_in
from camfuse.targets import Scores, Target, on_host, resolve_targets


def capture(
    model: nn.Module,
    inputs: Inputs,
    visit: Visitor,
    *,
    layers: LayerSelection = "leaf",
    target: Target = None,
    reshape: Reshape | None = None,
    allow_training: bool = False,
    create_graph: bool = False,
    gradients: bool = True,
    rehearsal: Rehearsal | None = None,
) -> Capture:
    """Runs one forward and one backward pass per target and visits every selected layer.

    Threads may capture at the same time, also the same model: they take turns.

    Args:
        model: Any module; wrappers for several devices are looked through, compiled models run
            eagerly.
        inputs: A tensor ``[B, ...]``, a sequence of positional or a mapping of keyword arguments;
            among them may be a list of images ``[C, H, W]``, as detectors take.
        visit: Called once per layer and target (not for aliases, not where the target does not
            depend on the layer).
        layers: Which modules; see :mod:`camfuse.layers`.
        target: Which scores; see :mod:`camfuse.targets`.
        reshape: Folds outputs whose layout is unknown into ``[B, C, *grid]``.
        allow_training: Whether modules may be in training mode. Their buffers stay untouched.
        create_graph: Whether pairs stay attached to the graph, so that maps can be differentiated;
            ``requires_grad`` is then left alone, nothing is detached, and visits come after the
            backward pass.
        gradients: Whether gradients are wanted. Without them there is no backward pass, visits get
            ``None`` in their place, and nobody can tell which layers the target depends on.
        rehearsal: Makes this a pass on stand-ins, from which nothing is learned about the model.

    Raises:
        ValueError: If an argument does not fit, the model is in training mode or holds inference
            tensors, or no target depends on any selected layer.
    """
    model = unwrap(model)
    check_model(model, allow_training)
    check_devices(model, first_image(inputs).device)
    selection = select_layers(model, layers)
    target = on_host(target)
    with one_at_a_time:
        known = rehearsal.overwritten if rehearsal else _overwritten.setdefault(model, {})
        layouts = rehearsal.layouts if rehearsal else layouts_of(model, inputs)
        # What a model overwrites is learned by running into it: each retry knows more.
        copy_all = keep_saved = False
        for _ in range(4):
            one_pass = _Pass(
                model,
                inputs,
                visit,
                selection,
                target,
                reshape,
                known,
                layouts,
                create_graph,
                gradients,
                copy_all,
            )
            try:
                found = one_pass.run(keep_saved, rehearsal.modes if rehearsal else ())
            except _OverwrittenError:
                copy_all = True
            except UnfamiliarError:
                layouts.forget()
            except torch.OutOfMemoryError as error:
                # The frames it came through hold activations, which a retry needs the memory of.
                place = traceback.extract_tb(error.__traceback__)[-1]
                error.add_note(f"raised in {place.name}, {place.filename}:{place.lineno}")
                error.add_note("max_memory= runs a batch in parts; fewer layers need less")
                raise error.with_traceback(None) from None
            except RuntimeError as error:
                # An operation saved its output for the backward pass and a later one overwrote it:
                # fine in inference, which is all that the model may have been made for.
                if keep_saved or "modified by an inplace operation" not in str(error):
                    raise
                keep_saved = True
            else:
                if one_pass.learning and not rehearsal:
                    release_spare_memory()
                return found
        raise RuntimeError("activations keep being overwritten differently in each pass")


_Edge = tuple[object, int, int]


class _OverwrittenError(Exception):
    """An activation was overwritten that had not been before."""


@dataclass(frozen=True)
class Rehearsal:
    """A pass, or several, on stand-ins for the real tensors.

    Attributes:
        modes: Entered around the model's own code, whose parameters and buffers stay real.
        overwritten: What these passes learn, apart from what is known about the model.
        layouts: Likewise.
    """

    modes: tuple[AbstractContextManager[object], ...]
    overwritten: dict[str, bool] = field(default_factory=dict)
    layouts: KnownLayouts = field(default_factory=KnownLayouts)


# What earlier passes taught about a model: whether a later module overwrites a layer's output.
_overwritten: weakref.WeakKeyDictionary[nn.Module, dict[str, bool]] = weakref.WeakKeyDictionary()


class _Running(threading.local):
    """The passes under way in this thread, innermost last."""

    def __init__(self) -> None:
        self.passes: list[_Pass] = []


_running = _Running()


class _Pass:
    """One forward and one backward pass."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        visit: Visitor,
        selection: Selection,
        target: Target,
        reshape: Reshape | None,
        overwritten: dict[str, bool],
        layouts: KnownLayouts,
        create_graph: bool,
        gradients: bool,
        copy_all: bool,
    ) -> None:
        self.model, self.visit, self.selection, self.target = model, visit, selection, target
        self.reshape, self.overwritten, self.create_graph = reshape, overwritten, create_graph
        self.layouts, self.gradients, self.copy_all = layouts, gradients, copy_all
        self.modules = tuple(model.modules())
        self.numbers = {module: i for i, module in enumerate(self.modules)}
        self.args, self.kwargs = call_arguments(model, inputs, create_graph=create_graph)
        image = first_image(inputs)
        self.batch = image.shape[0]
        self.devices = {one.device for one in (image, *state_tensors(self.modules))}
        self.input_size = image_size(image)
        self.tracer = None if layouts.known else AxisTracer(self.batch)

        self.roots: list[Tensor] = []
        self.rooted_objects: list[Tensor] = []
        self.rooted_modules: set[nn.Module] = set()
        self.shared_views: list[tuple[str, Tensor, int]] = []
        self.layers: list[Captured] = []
        self.skipped: list[Skipped] = []
        self.warnings: list[str] = []
        self.calls: dict[nn.Module, int] = {}
        self.by_edge: dict[_Edge, Captured] = {}
        self.recording = True
        self.learning = False
        self.current_target = 0
        self.last_target = 0

    def run(self, keep_saved: bool, modes: Sequence[AbstractContextManager[object]]) -> Capture:
        """Both passes, inside ``modes``; ``keep_saved``: the model may overwrite what is saved."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(plain_attention(self.modules, twice=self.create_graph))
            if keep_saved:
                stack.enter_context(torch.autograd.graph.allow_mutation_on_saved_tensors())
            stack.enter_context(one_thread())
            stack.enter_context(random_state(self.devices))
            stack.enter_context(eager(self.modules))
            if not self.create_graph:
                stack.enter_context(frozen(self.modules))
            stack.enter_context(borrowed_buffers(self.modules))
            for mode in modes:
                stack.enter_context(mode)
            stack.callback(self._let_go)
            _running.passes.append(self)
            stack.callback(_running.passes.pop)
            # Once layouts are known, of all layers whichever are selected, these alone are watched.
            for module in self.modules if self.tracer else self.selection.names:
                handle = module.register_forward_hook(self._on_forward, with_kwargs=True)
                stack.callback(handle.remove)
            with self.tracer.following([self.args, self.kwargs]) if self.tracer else nullcontext():
                output = self.model(*self.args, **self.kwargs)
            self.recording = False
            self.layouts.known = True
            scores = resolve_targets(self.target, output, self.batch)
            del output
            self._check_versions()
            self._backward(scores)
        self._explain_missing()
        return Capture(
            layers=tuple(one for one in self.layers if one.original.reached),
            skipped=tuple(self.skipped),
            warnings=tuple(self.warnings),
            scores=scores if self.create_graph else scores.detached(),
            batch=self.batch,
            input_size=self.input_size,
        )

    # Forward

    def _on_forward(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        if not _running.passes or _running.passes[-1] is not self:
            return None  # another thread uses the model, or another capture runs inside this one
        tensor = self._only_tensor(output)
        if not self.recording:
            return self._recompute(module, output, tensor)
        self.calls[module] = call = self.calls.get(module, 0) + 1
        if self.tracer is not None and isinstance(tensor, Tensor):
            self.layouts.learn(self.numbers[module], call, tensor, self.tracer)
        if module not in self.selection.names:
            return None
        name = self._call_name(module)
        kind = type(module).__name__
        folded = tensor if isinstance(tensor, str) else self._fold(module, name, tensor)
        if not torch.is_grad_enabled():
            folded = "computed without gradients inside the model"
        if isinstance(folded, str) or isinstance(tensor, str):
            self.skipped.append(Skipped(name, kind, str(folded)))
            return None
        spatial, shape = folded
        repeats = repeats_input(module)
        record = Captured(
            name=name,
            type=kind,
            index=len(self.layers),
            shape=shape,
            module=module,
            call=call,
            spatial=spatial,
        )
        self.layers.append(record)
        edge = _edge(tensor)
        record.alias_of = None if edge is None else self.by_edge.get(edge)
        if record.alias_of is not None:
            repeats = f"returns the tensor of {record.alias_of.name}"
        if repeats is not None and not self._is_explicit(module):
            record.shown = False
            self.skipped.append(Skipped(name, kind, f"{repeats}: shown under 'all' or by name"))
        if record.alias_of is not None:
            return None
        return exchanged(output, tensor, self._record(record, module, [args, kwargs], tensor, edge))

    def _only_tensor(self, output: Any) -> Tensor | str:
        """The tensor in a module's output that has a map, or why there is none."""
        if isinstance(output, Tensor):
            return output if output.is_floating_point() else "output is not one floating tensor"
        found = maps_in(output, self.batch)
        if len(found) == 1:
            return found[0]
        if not found:
            return "output holds no floating tensor with the batch and two more axes"
        return f"output holds {len(found)} floating tensors with the batch and more axes, not one"

    def _recompute(self, module: nn.Module, output: Any, tensor: Tensor | str) -> Any:
        """Checkpointing runs modules again during the backward pass: nothing new is learned.

        But where the graph began at this module's output, it must begin again.
        """
        if isinstance(tensor, str) or module not in self.rooted_modules or tensor.requires_grad:
            return None
        return exchanged(output, tensor, tensor.detach().requires_grad_().clone())

    def _fold(
        self, module: nn.Module, name: str, output: Tensor
    ) -> tuple[Reshape, tuple[int, ...]] | str:
        """How the output becomes ``[B, C, rows, columns]``, and its ``(C, *grid)``, or why not."""
        explicit = module in self.selection.explicit
        layout = self.layouts.find(self.numbers[module], self.calls[module], output)
        if isinstance(layout, Layout):
            if math.prod(layout.grid) == 1 and not explicit:
                size = " x ".join(map(str, layout.grid))
                return f"no spatial extent ({size}): shown by name"
            return layout.spatial, (layout.channels, *layout.grid)
        foldable = layout.endswith("pass reshape=") or explicit
        if self.reshape is None or output.ndim <= 2 or not foldable:
            return layout
        folding = CheckedReshape(self.reshape, name, self.batch)
        folding(output.detach())
        assert folding.shape is not None
        return folding, folding.shape[1:]

    def _record(
        self, record: Captured, module: nn.Module, sources: Any, output: Tensor, edge: _Edge | None
    ) -> Tensor:
        """Remembers the activation, sees that its gradient will be told, returns what flows on."""
        if self.create_graph:
            # The copy flows on, so that no successor can overwrite the recorded tensor.
            record.activation = output
            flowing = output.clone()
            self._know(record, output, flowing)
            return flowing
        flowing = output
        # What requires grad before anything was rooted does so for reasons of the model's own.
        rooted = not output.requires_grad or not self.roots
        is_view = output._is_view()
        shared_view = is_view and any(_share_memory(output, one) for one in tensors_in(sources))
        if rooted:
            self.rooted_modules.add(module)
            output, flowing = self._root(output)
            self._know(record, output, flowing)
        elif is_view:
            # A hook on a view never fires once a successor overwrites it.
            flowing = output.clone()
            self._know(record, output, flowing)
        elif edge is not None:
            self.by_edge[edge] = record
        if shared_view:
            self.shared_views.append((record.name, flowing, flowing._version))
        record.watched = output.detach()
        record.version = output._version
        record.learned = not rooted  # nobody else can overwrite a root
        known = self.overwritten.get(record.name)
        self.learning |= record.learned and known is None
        copied = self.copy_all or (record.learned if known is None else known)
        record.activation = record.watched.clone() if copied else record.watched
        output.register_hook(self._on_gradient(record))  # type: ignore[no-untyped-call]
        return flowing

    def _know(self, record: Captured, *tensors: Tensor) -> None:
        """Whoever returns one of these tensors later is an alias of ``record``."""
        for tensor in tensors:
            if (edge := _edge(tensor)) is not None:
                self.by_edge[edge] = record

    def _root(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Lets the graph begin here: the recorded tensor, a leaf, and what flows on."""
        root = output.detach().clone().requires_grad_()
        self.roots.append(root)
        flowing = graft(output, root)
        if flowing is output:
            self.rooted_objects.append(output)
        return root, flowing

    # Backward

    def _check_versions(self) -> None:
        surprise = False
        for record in self.layers:
            if record.watched is None:
                continue
            overwritten = record.watched._version != record.version
            surprise |= overwritten and record.activation is record.watched
            if record.learned:
                self.overwritten[record.name] = overwritten
            record.watched = None
        if surprise:
            raise _OverwrittenError
        for name, view, version in self.shared_views:
            if view._version != version:
                self.warnings.append(
                    f"{name}: a later module overwrites this view of its input in place; a copy "
                    "was overwritten instead, so modules that read the input afterwards differ"
                )

    def _backward(self, scores: Scores) -> None:
        if not self.layers:
            self._explain_missing()
            reasons = "; ".join(f"{one.name}: {one.reason}" for one in self.skipped[:4])
            raise ValueError(f"layers: none of the selected layers can be shown ({reasons})")
        if not self.gradients:
            self._visit_activations(len(scores.values))
            return
        if not any(score.requires_grad for score in scores.values):
            raise ValueError("target: the score depends on no selected layer")
        self.last_target = len(scores.values) - 1
        for t, score in enumerate(scores.values):
            self.current_target = t
            if not score.requires_grad:
                continue
            if self.create_graph:
                self._visit_attached(t, score)
            else:
                torch.autograd.grad(
                    score.sum(), self.roots, allow_unused=True, retain_graph=t < self.last_target
                )
        if not any(record.reached for record in self.layers):
            raise ValueError("target: the score depends on no selected layer")

    def _on_gradient(self, record: Captured) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            assert record.activation is not None
            record.reached = True
            self._visit(record, record.activation, gradient)
            if self.current_target == self.last_target:
                record.activation = None

        return hook

    def _visit_activations(self, targets: int) -> None:
        for record in self.layers:
            if record.activation is not None:
                record.reached = True
                for self.current_target in range(targets):
                    self._visit(record, record.activation, None)
                record.activation = None

    def _visit_attached(self, target: int, score: Tensor) -> None:
        pairs = [(one, one.activation) for one in self.layers if one.activation is not None]
        pairs = [(record, activation) for record, activation in pairs if activation.requires_grad]
        gradients = torch.autograd.grad(
            score.sum(),
            [activation for _, activation in pairs],
            create_graph=True,
            allow_unused=True,
        )
        for (record, activation), gradient in zip(pairs, gradients, strict=True):
            if gradient is not None:
                record.reached, record.gradient = True, gradient
                self._visit(record, activation, gradient)
                record.gradient = None

    def _visit(self, record: Captured, activation: Tensor, gradient: Tensor | None) -> None:
        folded = None if gradient is None else record.spatial(gradient)
        self.visit(record, self.current_target, record.spatial(activation), folded)

    def _let_go(self) -> None:
        """Drops every way from this pass to the graph, which holds hooks to it, and back."""
        self.args, self.kwargs = (), {}
        for one in self.rooted_objects:
            if not one._is_view():
                one.detach_()  # it may outlive the pass, as a buffer does
        self.rooted_objects.clear()
        self.shared_views.clear()
        self.roots.clear()
        self.by_edge.clear()
        for record in self.layers:
            record.activation = record.gradient = record.watched = None

    # Names and reasons

    def _call_name(self, module: nn.Module) -> str:
        name, call = self.selection.names[module], self.calls[module]
        return name if call == 1 else f"{name}#{call}"

    def _is_explicit(self, module: nn.Module) -> bool:
        return self.selection.everything or module in self.selection.explicit

    def _explain_missing(self) -> None:
        for module, name in self.selection.names.items():
            if module not in self.calls:
                self.skipped.append(Skipped(name, type(module).__name__, "not executed"))
        for record in self.layers:
            if not record.original.reached and record.shown:
                self.skipped.append(Skipped(record.name, record.type, UNREACHED))


def _share_memory(one: Tensor, other: Tensor) -> bool:
    storages = one.untyped_storage()._cdata, other.untyped_storage()._cdata
    return bool(storages[0] == storages[1])


def _edge(tensor: Tensor) -> _Edge | None:
    """What two tensors share if and only if they are the same value in the graph."""
    if not tensor.requires_grad:
        return None
    node = tensor.grad_fn or get_gradient_edge(tensor).node  # the former is quicker
    return node, tensor.output_nr, tensor._version
