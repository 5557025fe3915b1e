"""Concepts that a layer is made of, and where they are: deep feature factorisation.

Collins et al., Deep Feature Factorization for Concept Discovery, ECCV 2018, arXiv 1806.10206.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camfuse.capture import capture
from camfuse.captured import Captured, Reshape
from camfuse.checks import expect_whole
from camfuse.explain import check_one_map
from camfuse.inputs import Inputs, first_image
from camfuse.layers import find_layer, unwrap

_CHECKED_EVERY = 10  # iterations, for a GPU is waited for


@dataclass(frozen=True, eq=False)
class Factorization:
    """A layer's activations as a sum of concepts: ``A ~ sum_k maps[:, k] x concepts[k] + offset``.

    Concepts are in order of how much they add to the activations of the batch, most first.

    Attributes:
        layer: Name of the layer.
        concepts: ``[K, C]``, at least 0: what the layer holds where a concept is strongest, beyond
            the offset.
        maps: ``[B, K, h, w]``, in [0, 1]: how strong a concept is; each is 1 where it is strongest
            in the whole batch, unless the concept is empty.
        offset: ``[C]``, at most 0: each channel's lowest activation, if that is negative.
        error: What is left over: its norm over that of the activations less the offset, in [0, 1].
        iterations: How many it took.
        scores: What the classifier makes of each concept ``[K, classes]``; ``None`` without one.
    """

    layer: str
    concepts: Tensor
    maps: Tensor
    offset: Tensor
    error: float
    iterations: int
    scores: Tensor | None


def factorize(
    model: nn.Module,
    inputs: Inputs,
    layer: str | nn.Module,
    *,
    concepts: int = 5,
    classifier: Callable[[Tensor], Tensor] | None = None,
    iterations: int = 200,
    tolerance: float = 1e-4,
    reshape: Reshape | None = None,
    allow_training: bool = False,
    seed: int = 0,
) -> Factorization:
    """Finds what a layer's activations are made of, over all images of the batch at once.

    A non-negative matrix factorisation, by coordinate descent (HALS), in f32 (f64 for activations
    of that type) where the activations are. It takes one forward pass, and asks for no class.
    Activations must not be negative, so each channel that is somewhere is shifted up by its lowest
    value; those of layers behind a ReLU are taken as they are.

    Args:
        model: As for :func:`camfuse.layer_cams`.
        inputs: As for :func:`camfuse.layer_cams`.
        layer: Name or module.
        concepts: How many to find.
        classifier: From what a layer holds at a place ``[K, C]`` to scores ``[K, classes]``, such
            as the model's last layer; is asked about each concept, offset included.
        iterations: Most iterations.
        tolerance: Stops when 10 iterations lower the error by no more than this part of it.
        reshape: As for :func:`camfuse.layer_cams`.
        allow_training: Whether modules may be in training mode.
        seed: Of what the factorisation begins with; the same on every device.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If it does not fit, or the layer has no map (with the reason).
        FloatingPointError: If an activation is not finite.
    """
    expect_whole("concepts", concepts, at_least=1)
    expect_whole("iterations", iterations, at_least=1)
    if not tolerance >= 0:
        raise ValueError(f"tolerance: expected at least 0, got {tolerance!r}")
    batch = len(first_image(inputs))
    held: dict[Captured, Tensor] = {}

    def hold(found: Captured, target: int, A: Tensor, G: Tensor | None) -> None:
        held[found] = A.to(torch.promote_types(A.dtype, torch.float32), copy=True)

    found = capture(
        model,
        inputs,
        hold,
        layers=find_layer(unwrap(model), layer) if isinstance(layer, str) else layer,
        target=lambda _: torch.zeros(batch),
        reshape=reshape,
        allow_training=allow_training,
        gradients=False,
    )
    check_one_map(len(found.layers), 1, found.skipped)
    ((captured, A),) = held.items()
    if not bool(A.isfinite().all()):
        raise FloatingPointError(f"{captured.name}: its activation is not finite")
    channels, (height, width) = A.shape[1], A.shape[2:]
    with torch.inference_mode(False), torch.no_grad():
        matrix = A.movedim(1, -1).reshape(-1, channels)
        offset = matrix.amin(0).clamp(max=0)
        left, right, error, taken = _factors(matrix - offset, concepts, iterations, tolerance, seed)
        highest = left.amax(0)
        order = (left.sum(0) * right.sum(1)).argsort(descending=True, stable=True)
        scaled = torch.where(highest > 0, left / highest, left)[:, order]
        vectors = (highest[:, None] * right)[order]
        scores = None if classifier is None else _scores(classifier, vectors + offset)
    return Factorization(
        layer=captured.name,
        concepts=vectors,
        maps=scaled.view(batch, height, width, concepts).movedim(-1, 1).contiguous(),
        offset=offset,
        error=error,
        iterations=taken,
        scores=scores,
    )


def _scores(classifier: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
    weights = classifier.parameters() if isinstance(classifier, nn.Module) else iter(())
    like = next((one for one in weights if one.is_floating_point()), vectors)
    scores = classifier(vectors.to(like.dtype))
    if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != len(vectors):
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(
            f"classifier: expected it to return [{len(vectors)}, classes] for "
            f"{list(vectors.shape)}, got {got}"
        )
    return scores


def _factors(
    V: Tensor, count: int, iterations: int, tolerance: float, seed: int
) -> tuple[Tensor, Tensor, float, int]:
    """``W`` ``[P, K]`` and ``H`` ``[K, C]``, at least 0, whose product is near ``V`` ``[P, C]``.

    By hierarchical alternating least squares (Cichocki and Phan, 2009): the best column of one
    factor, given all else, has a closed form.

    Returns:
        The factors, the norm of what they leave over that of ``V``, and the iterations taken.
    """
    norm = V.norm()
    if not float(norm):
        return V.new_zeros(len(V), count), V.new_zeros(count, V.shape[1]), 0.0, 0
    generator = torch.Generator().manual_seed(seed)
    scale = (V.mean() / count).sqrt()
    W, H = (
        torch.randn(length, count, generator=generator, dtype=torch.float64).abs().to(V) * scale
        for length in V.shape
    )
    error = torch.inf
    for iteration in range(1, iterations + 1):
        _update(W, V @ H, H.T @ H)
        _update(H, V.T @ W, W.T @ W)
        if iteration % _CHECKED_EVERY == 0 or iteration == iterations:
            before, error = error, float((V - W @ H.T).norm() / norm)
            if before < torch.inf and before - error <= tolerance * before:
                break
    return W, H.T, error, iteration


def _update(factor: Tensor, products: Tensor, gram: Tensor) -> None:
    """One factor, column by column, given the other's products with the matrix and with itself.

    Args:
        factor: ``[n, K]``, updated in place.
        products: ``[n, K]``, of the matrix and the other factor.
        gram: ``[K, K]``, of the other factor's columns.
    """
    tiny = torch.finfo(factor.dtype).tiny
    for k in range(factor.shape[1]):
        step = (products[:, k] - factor @ gram[:, k]) / gram[k, k].clamp(min=tiny)
        factor[:, k] = (factor[:, k] + step).clamp(min=0)
