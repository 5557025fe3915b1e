"""Do maps depend on what the model has learned? Its parameters are made random, and they are told.

The parameter randomization test of Adebayo et al. 2018, "Sanity Checks for Saliency Maps", for the
maps of all layers at once: each stage costs one pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import nn

from camfuse.captured import Reshape
from camfuse.checks import expect_whole
from camfuse.collect import OnNonfinite
from camfuse.explain import layer_cams
from camfuse.inputs import Inputs
from camfuse.layers import LayerSelection, layer_names, unwrap
from camfuse.metrics.comparison import Comparison, Seen, Values
from camfuse.metrics.reinitialize import RandomCopy
from camfuse.metrics.sanity_result import SanityResult, Undefined
from camfuse.metrics.similarity import SIMILARITIES
from camfuse.stack import CamStack
from camfuse.targets import Target, fixed

Mode = Literal["cascading", "independent"]


def sanity(
    model: nn.Module,
    images: Inputs,
    *,
    method: str | Sequence[str] = "gradcam",
    layers: LayerSelection = "leaf",
    target: Target = None,
    mode: Mode = "cascading",
    stages: int | None = None,
    seed: int = 0,
    similarity: Sequence[str] = ("spearman", "ssim"),
    relu: bool = True,
    reshape: Reshape | None = None,
    batch_size: int = 32,
    progress: Callable[[str, int, int], None] | None = None,
) -> SanityResult:
    """Whether the maps of all layers change as the model's parameters are made random.

    Parameters are drawn anew from the last module that runs to the first, those above staying
    random (``"cascading"``) or given back (``"independent"``); after each stage all layers' maps of
    the classes first explained are compared with the original ones. See
    :func:`camfuse.metrics.reinitialize.redraw` for how they are drawn. A method whose maps stay as
    they were does not depend on the model, however well they look.

    The reverse does not hold, and methods should not be ranked by these numbers. Binder et al.
    2023, "Shortcomings of Top-Down Randomization-Based Sanity Checks for Evaluations of Deep Neural
    Network Explanations", show that activations below the random layers are what they were, so that
    maps made of them rightly keep some likeness, and that noisy maps lose theirs most easily.

    Args:
        model: In eval mode. The test works on a deep copy, which needs the memory of the parameters
            once more, as would keeping them to put them back: the model itself is never touched.
            Hooks of your own run on the copy, too.
        images: What it is called with, see :func:`camfuse.layer_cams`.
        method: One method or several.
        layers: Which layers; aliases and paddings by name only.
        target: The score to explain; the original model decides on the class.
        mode: ``"cascading"`` or ``"independent"``.
        stages: At most so many, of about equally many modules; by default one for each module with
            parameters.
        seed: For the random parameters, and methods that draw at random.
        similarity: Of ``"spearman"``, ``"ssim"`` and ``"pearson"``, at the layers' own resolution;
            the first of them decides on the verdict.
        relu: Whether negative evidence becomes 0 first, as in maps that are displayed.
        reshape: As for :func:`camfuse.layer_cams`.
        batch_size: How many perturbed samples go through the model at once.
        progress: Told of each pass: a word, how many are done, how many there are.

    Returns:
        The similarities by stage and layer, and a verdict for each layer and method.

    Raises:
        ValueError: If an argument does not fit, or the model cannot be copied or has no parameters.
        FloatingPointError: If an original map is not finite.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode: expected 'cascading' or 'independent', got {mode!r}")
    if stages is not None:
        expect_whole("stages", stages, at_least=1)
    similarity = [similarity] if isinstance(similarity, str) else list(similarity)
    if not similarity or set(similarity) - set(SIMILARITIES):
        raise ValueError(
            f"similarity: expected some of {', '.join(SIMILARITIES)}, got {similarity}"
        )
    named = _by_name(model, layers)
    copied = RandomCopy(model, seed)

    def ask(target: Target, on_nonfinite: OnNonfinite) -> CamStack:
        return layer_cams(
            copied.model,
            images,
            method=method,
            layers=named,
            target=target,
            reshape=reshape,
            on_nonfinite=on_nonfinite,
            batch_size=batch_size,
            seed=seed,
        )

    original = ask(target, "raise").shown()
    target = fixed(target, original.targets)
    compare, before = Comparison(original, similarity, relu), Seen.of(original)
    groups = copied.stages(images, stages)
    everything = [name for names in groups for name in names]
    total, done = len(groups) + 1 + (mode == "independent"), itertools.count(1)

    def after(names: Sequence[str], *, second: bool = False) -> Seen:
        copied.redraw(names, second=second)
        try:
            seen = Seen.of(ask(target, "skip"))
        except FloatingPointError as error:
            seen = Seen(failed=str(error))
        if progress:
            progress("passes", next(done), total)
        return seen

    rows: list[Values] = []
    undefined: list[Undefined] = []
    random = before
    for stage, names in enumerate(groups):
        random = after(names)
        values, reasons = compare(before, random)
        rows.append(values)
        undefined += [Undefined(stage, layer, reason) for layer, reason in reasons.items()]
        if mode == "independent":
            copied.restore(names)
    if mode == "independent":
        random = after(everything)
    return SanityResult(
        methods=original.methods,
        layers=original.names,
        stages=tuple(map(tuple, groups)),
        mode=mode,
        seed=seed,
        targets=original.targets.cpu(),
        similarity={name: torch.stack([row[name] for row in rows]) for name in similarity},
        final=compare(before, random)[0],
        between=compare(random, after(everything, second=True))[0],
        unrelated=compare.unrelated(torch.Generator().manual_seed(seed)),
        undefined=tuple(undefined),
        warnings=original.warnings,
    )


def _by_name(model: nn.Module, layers: LayerSelection) -> LayerSelection:
    """The selection with modules replaced by their names, which those of a copy share."""
    chosen = [layers] if isinstance(layers, str | nn.Module) else list(layers)
    if all(isinstance(one, str) for one in chosen):
        return layers
    names = layer_names(unwrap(model))
    missing = [one for one in chosen if isinstance(one, nn.Module) and one not in names]
    if missing:
        raise ValueError(f"layers: expected modules of the model, got {type(missing[0]).__name__}")
    return [one if isinstance(one, str) else names[one] for one in chosen]
