"""The two questions: where do all layers look (``layer_cams``), and where does one (``cam``)?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from torch import Tensor, nn

from camfuse.amounts import parse_bytes
from camfuse.augmentation import augmented
from camfuse.capture import capture
from camfuse.captured import Captured, Reshape
from camfuse.checks import expect_whole
from camfuse.collect import OnNonfinite
from camfuse.finish import finished_map
from camfuse.inputs import Inputs, first_image, image_size
from camfuse.layers import LayerSelection, find_layer, unwrap
from camfuse.methods import check_differentiable, find_method, find_methods
from camfuse.methods.base import PassMethod, RuleMethod
from camfuse.methods.principal import eigen_smoothed
from camfuse.split import Request, collect_within, fitting
from camfuse.stack import CamStack, Skipped
from camfuse.targets import Target
from camfuse.thinning import split_thinning, thin_out


def layer_cams(
    model: nn.Module,
    inputs: Inputs,
    *,
    method: str | Sequence[str] = "gradcam",
    layers: LayerSelection = "leaf",
    target: Target = None,
    reshape: Reshape | None = None,
    aug_smooth: bool = False,
    eigen_smooth: bool = False,
    on_nonfinite: OnNonfinite = "raise",
    allow_training: bool = False,
    create_graph: bool = False,
    max_memory: int | str | None = None,
    batch_size: int = 32,
    seed: int = 0,
) -> CamStack:
    """Raw class activation maps of many layers from one forward and one backward pass.

    Args:
        model: In eval mode; it is left exactly as it was found, also after an exception.
        inputs: One tensor ``[B, C, H, W]``, a sequence of positional or a mapping of keyword
            arguments.
        method: One method or several, all from the same pass; see ``camfuse.METHODS``.
        layers: ``"leaf"`` (every module that computes something itself), ``"all"`` (containers
            too), ``"conv"``, ``"type:CLASS"``, names, globs, modules, or several of these;
            ``"stage-ends"`` and ``"every:N"`` thin out what the others select (leaves, if there
            are none), see :mod:`camfuse.thinning`.
        target: The score to explain: ``None`` (each sample's arg-max class), a class, one class
            per sample, a function of the output that returns ``[B]``, or several (``[T, B]`` or
            :class:`camfuse.Each`).
        reshape: From outputs whose layout is unknown to ``[B, C, h, w]``; applied to gradients too.
        aug_smooth: Whether maps are averaged over six passes: the image and its mirror image, each
            at 0.9, 1 and 1.1 times its values; see :mod:`camfuse.augmentation`.
        eigen_smooth: Whether each map is the first principal component of its terms, instead of
            their sum over the channels.
        on_nonfinite: ``"raise"`` names the layer and sample of a NaN or infinity; ``"skip"`` leaves
            such layers out.
        allow_training: Whether modules may be in training mode.
        create_graph: Whether the maps stay differentiable, to stand in a loss.
        max_memory: Splits the batch so that no pass is predicted to need more than this besides
            the model and its inputs: bytes, or text like ``"2GB"`` or ``"512MiB"``. Tensors whose
            first axis is the batch are split, a function among the targets sees the output for one
            part. See :func:`camfuse.predict_memory`; a model that cannot be predicted is measured
            on its first sample. Without a limit the batch is one pass, which is refused where
            its tensors alone would need more than the machine has left.
        batch_size: How many perturbed samples go through the model at once, for methods that
            perturb; not part of what ``max_memory`` counts.
        seed: For methods that draw at random.

    Returns:
        The stack, with every selected layer either in ``layers`` or, with its reason, in
        ``skipped``.

    Raises:
        ValueError: If an argument does not fit.
        FloatingPointError: If a map is not finite and ``on_nonfinite`` is ``"raise"``, or if none
            is.
        MemoryError: If not even one sample fits into ``max_memory``, or the pass into the machine.
    """
    if on_nonfinite not in get_args(OnNonfinite):
        raise ValueError(f"on_nonfinite: expected 'raise' or 'skip', got {on_nonfinite!r}")
    limit = None if max_memory is None else parse_bytes("max_memory", max_memory)
    captured, thinning = split_thinning(layers)
    methods = find_methods(method)
    if eigen_smooth:
        methods = [eigen_smoothed(one) for one in methods]
    if create_graph:
        check_differentiable(methods)
    expect_whole("batch_size", batch_size, at_least=1)
    request = Request(
        model,
        inputs,
        methods,
        captured,
        target=target,
        reshape=reshape,
        allow_training=allow_training,
        create_graph=create_graph,
        seed=seed,
        thinning=thinning,
        batch_size=batch_size,
    )
    kept: list[str] = []  # of the layers that methods with passes of their own have seen

    def ask(request: Request) -> CamStack:
        collector, found = collect_within(request, limit)
        kept[:] = [layer.name for layer in request.kept(found)]
        return collector.stack(found, type(model).__name__, on_nonfinite)

    stack = augmented(request, ask) if aug_smooth else ask(request)
    if not thinning:
        return stack
    if any(isinstance(one, PassMethod) for one in methods):
        return stack.select(layers=[name for name in kept if name in stack.names])
    return thin_out(stack, thinning)


def cam(
    model: nn.Module,
    inputs: Inputs,
    layer: str | nn.Module,
    *,
    method: str = "gradcam",
    target: Target = None,
    size: Sequence[int] | None = None,
    relu: bool = True,
    reshape: Reshape | None = None,
    aug_smooth: bool = False,
    eigen_smooth: bool = False,
    allow_training: bool = False,
    batch_size: int = 32,
    seed: int = 0,
) -> Tensor:
    """The finished map of one layer, as it is laid over the image.

    Args:
        model: As for :func:`layer_cams`.
        inputs: As for :func:`layer_cams`.
        layer: Name or module.
        method: One method.
        target: One target, as for :func:`layer_cams`.
        size: ``(H, W)`` of the map, ``(L,)`` or ``(D, H, W)`` for sequences or volumes; the
            input's by default.
        relu: Whether negative evidence becomes 0.
        reshape: As for :func:`layer_cams`, likewise the rest.
        aug_smooth: Whether maps are averaged over flips and brightness.
        eigen_smooth: Whether maps are the principal component of their terms.
        allow_training: Whether modules may be in training mode.
        batch_size: How many perturbed samples go through the model at once.
        seed: For methods that draw at random.

    Returns:
        ``[B, H, W]`` (or ``[B, *size]``) in [0, 1], each sample normalised by its own range;
        constant maps are 0.

    Raises:
        ValueError: If an argument does not fit, or the layer cannot be shown (with the reason).
        FloatingPointError: If the map is not finite.
        MemoryError: If the pass would need more than the machine has left.
    """
    how = find_method(method)
    image = first_image(inputs)
    finished = tuple(size or image_size(image))
    chosen = find_layer(unwrap(model), layer) if isinstance(layer, str) else layer
    if not isinstance(how, RuleMethod) or how.target or aug_smooth or eigen_smooth:
        stack = layer_cams(
            model,
            inputs,
            method=method,
            layers=chosen,
            target=target,
            reshape=reshape,
            aug_smooth=aug_smooth,
            eigen_smooth=eigen_smooth,
            allow_training=allow_training,
            batch_size=batch_size,
            seed=seed,
        )
        check_one_map(len(stack), stack.axes[1], stack.skipped)
        return stack.normalized(0, relu=relu, size=finished)[0, 0]
    rule = how.rule
    maps: dict[tuple[Captured, int], Tensor] = {}

    def visit(found: Captured, target: int, A: Tensor, G: Tensor | None) -> None:
        assert G is not None
        maps[found, target] = finished_map(A, G, rule, found.size, finished, relu=relu)

    with fitting(Request(model, inputs, [how], chosen, reshape=reshape)):
        found = capture(
            model,
            inputs,
            visit,
            layers=chosen,
            target=target,
            reshape=reshape,
            allow_training=allow_training,
        )
    check_one_map(len(found.layers), len(found.scores.values), found.skipped)
    heat = maps[found.layers[0], 0]
    if not bool(heat.isfinite().all()):
        raise FloatingPointError(f"{found.layers[0].name}: its map is not finite")
    return heat


def check_one_map(layers: int, targets: int, skipped: Sequence[Skipped]) -> None:
    """Checks that so many layers and targets are one map.

    Raises:
        ValueError: If they are not; the message says what was skipped and why.
    """
    if layers * targets != 1:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in skipped)
        several = f"{layers * targets} maps from several calls or targets, use layer_cams()"
        raise ValueError(f"layer: expected exactly one map, got {reasons or several}")
