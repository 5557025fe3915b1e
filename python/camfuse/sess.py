"""Maps of objects large and small: windows slide over the image at several scales (SESS).

Tursun et al., SESS: Saliency Enhancing with Scaling and Sliding, ECCV 2022, arXiv 2207.01769.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camfuse.capture import capture
from camfuse.captured import Reshape
from camfuse.checks import expect, expect_whole
from camfuse.explain import check_one_map, layer_cams
from camfuse.inputs import first_image
from camfuse.layers import find_layer, unwrap
from camfuse.methods import find_method
from camfuse.targets import Scores, Target, count_targets, fixed, names_places
from camfuse.windows import BLUR, Grid, Place, blurred

Pool = Literal["mean", "max"]

_STEP_OF_SCALES = 2 / 7  # of the window: 64 pixels of 224, as in the paper


def sess(
    model: nn.Module,
    inputs: Tensor,
    layer: str | nn.Module,
    *,
    method: str = "gradcam",
    target: Target = None,
    scales: int | Sequence[int] = 12,
    window: int | None = None,
    step: int | None = None,
    pre_filter: float = 0.0,
    threshold: float = 0.0,
    pool: Pool = "mean",
    smooth: bool = True,
    softmax: bool = True,
    reshape: Reshape | None = None,
    eigen_smooth: bool = False,
    allow_training: bool = False,
    batch_size: int = 32,
    seed: int = 0,
) -> Tensor:
    """The finished map of one layer, fused from the maps of windows at several scales.

    The image is enlarged to each scale, and a square window slides over it. Each window's map is
    normalised by its own range at the window's size, weighed by the window's score over that of the
    best, and laid where the window was, at the size of the image; all of them are pooled, smoothed,
    and normalised. Finds small objects and several of one kind, which one pass would miss.

    Args:
        model: As for :func:`camfuse.layer_cams`; it must take images of the window's size.
        inputs: Images ``[B, C, H, W]``.
        layer: Name or module.
        method: One method.
        target: One target, as for :func:`camfuse.layer_cams`, but none that names places of the
            image. ``None`` explains the arg-max class of the whole image in every window.
        scales: How many, or which: lengths of the enlarged image's shorter side in pixels, none
            below the window's. So many begin with the window's side and grow by 2/7 of it.
        window: Side of the window in pixels; the image's shorter side by default.
        step: How far the window slides in pixels; its side by default, so that windows overlap at
            the far ends only, where they are moved back into the image.
        pre_filter: The part of windows, those of the lowest scores, that gets no map, in [0, 1);
            takes a forward pass of all windows.
        threshold: Values no greater do not count in a mean.
        pool: ``"mean"`` over the windows that show something at a pixel, or the ``"max"``.
        smooth: Whether the result is blurred, by a Gaussian of 11 pixels and a deviation of 5.
        softmax: Whether a window's score is the probability of the class, else the target's score,
            if it is positive; so it is for functions.
        reshape: As for :func:`camfuse.layer_cams`, likewise the rest.
        eigen_smooth: Whether maps are the principal component of their terms.
        allow_training: Whether modules may be in training mode.
        batch_size: How many windows go through the model at once.
        seed: For methods that draw at random.

    Returns:
        ``[B, H, W]`` in [0, 1], each sample normalised by its own range; constant maps are 0.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If it does not fit, or the layer cannot be shown (with the reason).
        FloatingPointError: If a window's map is not finite.
    """
    find_method(method)
    expect("inputs", inputs, Tensor)
    if inputs.ndim != 4:
        raise ValueError(f"inputs: expected images [B, C, H, W], got shape {tuple(inputs.shape)}")
    image = first_image(inputs).detach()
    if pool not in get_args(Pool):
        raise ValueError(f"pool: expected 'mean' or 'max', got {pool!r}")
    if not 0 <= pre_filter < 1:
        raise ValueError(f"pre_filter: expected a part in [0, 1), got {pre_filter!r}")
    expect_whole("batch_size", batch_size, at_least=1)
    if count_targets(target) != 1:
        raise ValueError(f"target: expected one target, got {count_targets(target)}")
    if names_places(target):
        raise ValueError("target: expected none that names places, which windows move")
    if smooth and min(image.shape[2:]) <= BLUR // 2:
        raise ValueError(f"inputs: expected more than {BLUR // 2} pixels a side to be smoothed")
    grid = _grid(image, scales, window, step)
    chosen = find_layer(unwrap(model), layer) if isinstance(layer, str) else layer

    def scores_of(images: Tensor, target: Target) -> Scores:
        return capture(
            model,
            images,
            lambda *_: None,
            layers=chosen,
            target=target,
            reshape=reshape,
            allow_training=allow_training,
            gradients=False,
        ).scores

    indices = scores_of(image, target).indices

    def target_of(places: Sequence[Place]) -> Target:
        return fixed(target, indices[:, [place.sample for place in places]])

    def weigh(values: Tensor, probabilities: Tensor) -> Tensor:
        values, probabilities = values.detach().cpu().double(), probabilities.cpu().double()
        known = softmax and not bool(probabilities.isnan().any())
        return (probabilities if known else values).clamp(min=0)

    places = grid.places(len(image))
    weights = torch.empty(0, dtype=torch.float64)
    if pre_filter:
        for some in _batches(places, batch_size):
            found = scores_of(grid.cut(image, some), target_of(some))
            weights = torch.cat([weights, weigh(found.values[0], found.probabilities[0])])
        kept = _best(places, weights, pre_filter)
        places, weights = [places[i] for i in kept], weights[kept]
    maps = []
    for some in _batches(places, batch_size):
        stack = layer_cams(
            model,
            grid.cut(image, some),
            method=method,
            layers=chosen,
            target=target_of(some),
            reshape=reshape,
            eigen_smooth=eigen_smooth,
            allow_training=allow_training,
            batch_size=batch_size,
            seed=seed,
        )
        check_one_map(len(stack), stack.axes[1], stack.skipped)
        maps += list(stack.maps(0)[0, 0])
        if not pre_filter:
            weights = torch.cat([weights, weigh(stack.scores[0], stack.probabilities[0])])
    fused = _fuse(maps, places, _relative(places, weights), grid, image, pool, threshold)
    return _by_range(blurred(fused) if smooth else fused)


def _grid(image: Tensor, scales: int | Sequence[int], window: int | None, step: int | None) -> Grid:
    height, width = image.shape[2:]
    shorter, longer = sorted((height, width))
    side = shorter if window is None else window
    expect_whole("window", side, of="pixels", at_least=1)
    stride = side if step is None else step
    expect_whole("step", stride, of="pixels", at_least=1)
    if isinstance(scales, str) or not isinstance(scales, Sequence):
        expect_whole("scales", scales, at_least=1)
        scales = [side + round(side * _STEP_OF_SCALES) * i for i in range(scales)]
    if not scales:
        raise ValueError("scales: expected at least one, got none")
    sizes = []
    for scale in scales:
        expect_whole("scales", scale, of="pixels", at_least=1)
        if scale < side:
            raise ValueError(f"scales: expected none below the window's side {side}, got {scale}")
        other = scale * longer // shorter
        sizes.append((scale, other) if height <= width else (other, scale))
    return Grid(sizes, side, stride)


def _batches(places: Sequence[Place], count: int) -> Iterator[Sequence[Place]]:
    return (places[start : start + count] for start in range(0, len(places), count))


def _by_sample(places: Sequence[Place]) -> dict[int, list[int]]:
    """Positions of the places of each sample."""
    found: dict[int, list[int]] = {}
    for i, place in enumerate(places):
        found.setdefault(place.sample, []).append(i)
    return found


def _best(places: Sequence[Place], weights: Tensor, pre_filter: float) -> list[int]:
    """Positions of all windows but those of the lowest scores of each sample, in their order."""
    kept: list[int] = []
    for own in _by_sample(places).values():
        order = weights[own].argsort(stable=True).tolist()
        kept += [own[i] for i in order[int(len(own) * pre_filter) :]]
    return sorted(kept)


def _relative(places: Sequence[Place], weights: Tensor) -> list[float]:
    """Weights over the highest of each sample; 1 where none is above 0."""
    relative = torch.ones_like(weights)
    for own in _by_sample(places).values():
        if (highest := weights[own].max()) > 0:
            relative[own] = weights[own] / highest
    found: list[float] = relative.tolist()
    return found


def _fuse(
    maps: Sequence[Tensor],
    places: Sequence[Place],
    weights: Sequence[float],
    grid: Grid,
    image: Tensor,
    pool: Pool,
    threshold: float,
) -> Tensor:
    """One map per image ``[B, H, W]`` from those of its windows; one after another, to save memory.

    Args:
        maps: Of each window ``[h, w]``.
        places: Of the windows.
        weights: Of the windows.
        grid: Where windows can be.
        image: ``[B, C, H, W]``.
        pool: How values at a pixel are joined.
        threshold: Values no greater do not count in a mean.
    """
    batch, _, height, width = image.shape
    fused = maps[0].new_zeros(batch, height, width)
    counts = torch.zeros_like(fused)
    for heat, place, weight in zip(maps, places, weights, strict=True):
        finished = _by_range(_resized(heat.clamp(min=0), (grid.window, grid.window))) * weight
        below = place.size[0] - place.top - grid.window
        right = place.size[1] - place.left - grid.window
        full = F.pad(finished, (place.left, right, place.top, below))
        laid = _resized(full, (height, width))
        own = fused[place.sample]
        if pool == "max":
            torch.maximum(own, laid, out=own)
        else:
            counted = laid > threshold
            own += laid * counted
            counts[place.sample] += counted
    return fused / counts.clamp(min=1) if pool == "mean" else fused


def _resized(heat: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(heat[None, None], size, mode="bilinear")[0, 0]


def _by_range(heat: Tensor) -> Tensor:
    """Maps ``[..., H, W]``, each by its own range; 0 where it is constant."""
    low, high = heat.amin((-2, -1), keepdim=True), heat.amax((-2, -1), keepdim=True)
    return torch.where(high > low, (heat - low) / (high - low), torch.zeros_like(heat))
