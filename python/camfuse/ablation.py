"""Ablation-CAM: a channel weighs what the score loses without it."""

from __future__ import annotations

import torch
from torch import Tensor

from camfuse.perturbation import Perturbation, Sample, Site, Weighted, weighted
from camfuse.replay import Replay


def ablationcam(run: Perturbation, site: Site) -> Weighted:
    """Weights (y - y_k) / y, where y_k is the score y with channel k set to zero.

    Desai and Ramaswamy, Ablation-CAM, WACV 2020, eq. 5. Where y is 0 the drop is not divided by it:
    the map is then right up to a positive factor. A channel that is zero everywhere weighs 0.
    Only what follows the layer is computed for each channel, if that is proven to be the same.

    Raises:
        ValueError: If the layer's output is no tensor ``[B, ...]``, or ``site.spatial`` no view.
    """
    found = []
    with run.session(site) as refusals:
        replay = Replay(run.model, site.module, site.call)
        for sample in run.samples():
            output, raw = replay.record(sample.arguments)
            scores = sample.resolve(output)
            del output
            found.append(
                (_folded(raw, site), _relative_drops(run, sample, replay, raw, site), scores)
            )
        refusals += (replay.refusal,) if replay.refusal else ()
    activations, weights, scores_ = map(list, zip(*found, strict=True))
    return weighted(activations, weights, scores_, refusals)


def _folded(raw: Tensor, site: Site) -> Tensor:
    A = site.spatial(raw)
    if A.ndim < 3 or len(A) != 1 or len(raw) != 1:
        raise ValueError(
            f"layer: expected [B, C, h, w] of a {type(site.module).__name__}, got "
            f"{tuple(A.shape)} for one sample"
        )
    if A.untyped_storage().data_ptr() != raw.untyped_storage().data_ptr():
        raise ValueError(
            "reshape: ablationcam sets channels to zero through it, so it must return a view of "
            "its input (permute, unflatten, slices), not a copy"
        )
    return A


def _relative_drops(
    run: Perturbation, sample: Sample, replay: Replay, raw: Tensor, site: Site
) -> Tensor:
    """Weights ``[T, C]`` of one sample, f64."""
    A = site.spatial(raw)
    alive = (A != 0).flatten(2).any(2)[0].nonzero()[:, 0]
    # The first copy stays whole: scores that are compared come out of the same kernels.
    channels = torch.cat([alive.new_tensor([-1]), alive])
    scores = []
    for chunk in run.chunks(len(channels)):
        ablated = channels[chunk]
        activation = raw.expand(len(ablated), *raw.shape[1:]).clone()
        rows = torch.arange(len(ablated), device=raw.device)[ablated >= 0]
        site.spatial(activation)[rows, ablated[ablated >= 0]] = 0
        scores.append(sample.score(replay.run(activation), len(ablated)))
    found = torch.cat(scores, 1)
    whole = found[:, :1]
    drops = whole - found[:, 1:]
    weights = drops.new_zeros(len(drops), A.shape[1])
    weights[:, alive] = torch.where(whole == 0, drops, drops / whole)
    return weights
