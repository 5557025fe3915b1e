"""Score-CAM and its kin: a channel weighs what the image scores where the channel is active.

A channel's mask is the channel, min-max normalised to [0, 1] at the layer's resolution, upsampled
to the image (linear, half-pixel centres); that of a constant channel is 0. The weights are the
softmax over channels of the score: subtracting that of a baseline, as the papers do, cancels there.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from camfuse.perturbation import Perturbation, Sample, Site, Weighted, weighted
from camfuse.replay import Replay

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def scorecam(run: Perturbation, site: Site) -> Weighted:
    """Scores of the masked image.

    Wang et al., Score-CAM, CVPRW 2020, arXiv 1910.01279.
    """
    return _by_masks(run, site, lambda sample, masks: _scaled_scores(sample, masks, [1.0]))


def sscam(
    run: Perturbation, site: Site, *, samples: int = 35, std: float = 2.0, seed: int = 0
) -> Weighted:
    """Mean scores over masks with Gaussian noise.

    Wang et al., SS-CAM, 2020, arXiv 2006.14255. The noise is added to the upsampled mask, as in
    torchcam. It is drawn on the CPU, anew for every channel and draw but the same for all samples,
    so that neither the device, nor the batch, nor ``batch_size`` changes a map.

    Args:
        run: The samples.
        site: The layer.
        samples: How many draws are averaged.
        std: Standard deviation of the noise; masks lie in [0, 1].
        seed: Of the noise.
    """
    _check_samples(samples)
    if not (math.isfinite(std) and std >= 0):
        raise ValueError(f"std: expected a number of at least 0, got {std!r}")

    def scores(sample: Sample, masks: Tensor) -> Tensor:
        size = sample.image.shape[2:]

        def images(chunk: slice) -> Tensor:
            jobs = [divmod(job, samples) for job in range(chunk.start, chunk.stop)]
            noise = torch.stack([mask_noise(seed, draw, channel, size) for channel, draw in jobs])
            upsampled = _upsampled(masks[[channel for channel, _ in jobs]], sample.image)
            return sample.image * (upsampled + std * noise[:, None].to(upsampled))

        found = sample.score_images(len(masks) * samples, images)
        return found.view(len(found), len(masks), samples).mean(2)

    return _by_masks(run, site, scores)


def iscam(run: Perturbation, site: Site, *, samples: int = 10) -> Weighted:
    """Mean scores along a path from a darkened image to a brightened one.

    Naidu et al., IS-CAM, 2020, arXiv 2010.03023, as torchcam reads it: step i of N multiplies the
    masked image by 1/N + 2/N + ... + i/N.

    Args:
        run: The samples.
        site: The layer.
        samples: N, the number of steps.
    """
    _check_samples(samples)
    factors = [i * (i + 1) / (2 * samples) for i in range(1, samples + 1)]
    return _by_masks(run, site, lambda sample, masks: _scaled_scores(sample, masks, factors))


def mask_noise(seed: int, draw: int, channel: int, size: Sequence[int]) -> Tensor:
    """Standard normal noise of SS-CAM for one mask, f32 on the CPU."""
    # The generator takes 32 bits of a seed and ignores the rest.
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{draw}:{channel}".encode()))
    return torch.randn(tuple(size), generator=generator)


def _by_masks(
    run: Perturbation, site: Site, scores: Callable[[Sample, Tensor], Tensor]
) -> Weighted:
    """``scores`` maps a sample and its masks ``[C, ...]`` to what they score ``[T, C]``."""
    if not run.image.is_floating_point() or not 3 <= run.image.ndim <= 5:
        raise ValueError(
            "inputs: masks need a floating image [B, C, H, W], or [B, C] and one or three axes, "
            f"got {run.image.dtype} {tuple(run.image.shape)}"
        )
    found = []
    with run.session(site) as refusals:
        for sample in run.samples():
            output, raw = Replay(run.model, site.module, site.call).record(sample.arguments)
            resolved = sample.resolve(output)
            del output
            A = site.spatial(raw)
            weights = scores(sample, _masks(A, raw, sample.image)).softmax(1)
            found.append((A, weights, resolved))
    activations, weights_, resolved_ = map(list, zip(*found, strict=True))
    return weighted(activations, weights_, resolved_, refusals)


def _masks(A: Tensor, raw: Tensor, image: Tensor) -> Tensor:
    """Masks ``[C, ...]`` in [0, 1] at the layer's resolution, an axis for each of the image's."""
    source = A if A.ndim == image.ndim else raw
    if source.ndim != image.ndim or source.shape[:2] != A.shape[:2] or len(A) != 1:
        raise ValueError(
            f"layer: masks for an image {tuple(image.shape)} need an output with as many axes, "
            f"got {tuple(raw.shape)}, shown as {tuple(A.shape)}"
        )
    planes = source[0].to(torch.promote_types(source.dtype, torch.float32))
    axes = tuple(range(1, planes.ndim))
    low, high = planes.amin(axes, keepdim=True), planes.amax(axes, keepdim=True)
    return (planes - low) / torch.where(high == low, 1, high - low)


def _scaled_scores(sample: Sample, masks: Tensor, factors: Sequence[float]) -> Tensor:
    """Mean scores ``[T, C]`` over several factors.

    All the masks that are zero, as many are behind a ReLU, are run once.
    """
    alive = masks.flatten(1).any(1)
    channels = alive.nonzero()[:, 0]
    # After every factor of every other channel comes one zero mask.
    channel = torch.cat([channels.repeat_interleave(len(factors)), (~alive).nonzero()[:1, 0]])
    factor = masks.new_tensor(factors).repeat(len(channels) + 1)

    def images(chunk: slice) -> Tensor:
        upsampled = _upsampled(masks[channel[chunk]], sample.image)
        scale = factor[chunk].to(upsampled).view(-1, *[1] * (upsampled.ndim - 1))
        return sample.image * (scale * upsampled)

    scores = sample.score_images(len(channel), images)
    of_alive = scores[:, : len(channels) * len(factors)]
    means = scores[:, -1:].repeat(1, len(masks))
    means[:, channels] = of_alive.reshape(len(means), len(channels), len(factors)).mean(2)
    return means


def _upsampled(masks: Tensor, image: Tensor) -> Tensor:
    """Masks ``[n, 1, ...]`` of the image's size and dtype."""
    size = image.shape[2:]
    upsampled = F.interpolate(masks[:, None], size, mode=_LINEAR[len(size)], align_corners=False)
    return upsampled.to(image.dtype)


def _check_samples(samples: int) -> None:
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        raise ValueError(f"samples: expected an integer of at least 1, got {samples!r}")
