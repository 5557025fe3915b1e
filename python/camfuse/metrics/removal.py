"""ROAD's perturbation: pixels removed, imputed from what is around them, and a little noise added.

Rong et al., A consistent and efficient evaluation strategy for attribution methods, ICML 2022,
arXiv 2202.00449.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from camfuse.checks import expect, expect_whole
from camfuse.devices import upload
from camfuse.metrics.ranking import Ranking, percentile_masks, removal_masks
from camfuse.metrics.scoring import Scorer
from camfuse.ops import impute

Maps = Callable[[slice], Tensor]
"""From some of the maps' positions to these maps ``[n, H, W]`` at the images' size."""

Told = Callable[[int, int], None]
"""Told how many maps of how many are done."""

PERCENTAGES = (20.0, 40.0, 60.0, 80.0)
NOISE = 0.01

_TIES_SEED = 0
_CHUNK_BYTES = 128 << 20  # of imputed images that wait for the model at once
_CHUNK_BYTES_CUDA = 1 << 30


@dataclass(frozen=True)
class Removal:
    """What is removed of an image, and what takes its place.

    Attributes:
        percentages: How much of an image is removed, P times, each in (0, 100).
        noise: Standard deviation of what is added to removed pixels, in the units of the tensor
            that the model is given, 0 or more.
        seeds: Of the noise, S of them.
        ranking: ``"rank"`` removes exactly that much, see
            :func:`camfuse.metrics.ranking.removal_masks`; ``"percentile"`` what pytorch-grad-cam
            would for percentiles of those numbers.
    """

    percentages: Sequence[float] = PERCENTAGES
    noise: float = NOISE
    seeds: Sequence[int] = (0,)
    ranking: Ranking = "rank"

    def __post_init__(self) -> None:
        """Check all of it.

        Raises:
            TypeError: If an attribute is of the wrong type.
            ValueError: If one does not fit.
        """
        for name, several in (("percentages", self.percentages), ("seeds", self.seeds)):
            if isinstance(several, str):
                raise TypeError(f"{name}: expected a sequence of numbers, got {several!r}")
            expect(name, several, Sequence)
            if not several:
                raise ValueError(f"{name}: expected at least one, got none")
            if len(set(several)) < len(several):
                raise ValueError(f"{name}: expected each once, got {tuple(several)}")
        for one in self.percentages:
            expect("percentages", one, int, float)
            if not 0 < one < 100:
                raise ValueError(f"percentages: expected more than 0 and less than 100, got {one}")
        for seed in self.seeds:
            expect_whole("seeds", seed, at_least=0)
        expect("noise", self.noise, int, float)
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise: expected a finite number of at least 0, got {self.noise}")
        if self.ranking not in get_args(Ranking):
            raise ValueError(f"ranking: expected 'rank' or 'percentile', got {self.ranking!r}")

    def masks(self, maps: Tensor) -> Tensor:
        """True where pixels are removed ``[N, 2, P, H, W]``: most and least relevant first."""
        if self.ranking == "percentile":
            return torch.stack(percentile_masks(maps, self.percentages), 1)
        return torch.stack(removal_masks(maps, self.percentages, seed=_TIES_SEED), 1)

    def scores(
        self, scorer: Scorer, maps: Maps, samples: Tensor, told: Told | None = None
    ) -> Tensor:
        """What the model says of images without what maps point at; inside a scorer's session.

        Args:
            scorer: Holds the images.
            maps: The maps, M of them.
            samples: Which image each is a map of ``[M]``, int64, on the CPU, in ascending order.
            told: Told of each chunk that is done.

        Returns:
            ``[S, 2, P, T, M]``, f64: by seed, most and least relevant first, percentage and target.
        """
        images, count = scorer.images, len(samples)
        directions, shares = 2, len(self.percentages)
        copies = directions * shares
        # Without noise every seed gives the same.
        seeds = self.seeds if self.noise else self.seeds[:1]
        found = images.new_empty(
            len(seeds), copies, len(scorer.targets), count, dtype=torch.float64
        )
        noises = [self._noise(seed, images) for seed in seeds] if self.noise else [None]
        given: Tensor | None = None
        step = _maps_at_once(images, copies, scorer.batch_size)
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            chunk = samples[part]
            masks = self.masks(maps(part)).flatten(1, 2)  # [n, copies, H, W]
            imputed = _imputed(images, masks, chunk)  # [n, copies, C, H, W]
            who = chunk.repeat_interleave(copies)
            if given is None:  # large buffers are slow to get: one for all chunks
                given = torch.empty_like(imputed)
            noisy = given[: len(masks)]
            for i, noise in enumerate(noises):
                if noise is not None:
                    torch.mul(noise, masks[:, :, None], out=noisy).add_(imputed)
                scores = scorer((imputed if noise is None else noisy).flatten(0, 1), who)
                found[i, :, :, part] = scores.view(len(scores), -1, copies).permute(2, 0, 1)
            if told:
                told(part.stop, count)
        shape = (len(seeds), directions, shares, *found.shape[2:])
        return found.view(shape).expand(len(self.seeds), *shape[1:])

    def _noise(self, seed: int, images: Tensor) -> Tensor:
        """``[copies, C, H, W]``, the same for all maps and all images: none depends on a batch."""
        shape = (2 * len(self.percentages), *images.shape[1:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return upload(noise.mul_(self.noise), images.device).to(images.dtype)


def road_of(scores: Tensor) -> Tensor:
    """ROAD ``[S, T, M]`` of scores ``[S, 2, P, T, M]``: half of how much LeRF is above MoRF."""
    return (scores[:, 1] - scores[:, 0]).mean(1) / 2


def spread_of(values: Tensor) -> Tensor:
    """Standard deviation over the first axis; 0 where there is but one."""
    return values.std(0, correction=int(len(values) > 1))


def _imputed(images: Tensor, masks: Tensor, samples: Tensor) -> Tensor:
    """Images without what masks ``[n, copies, H, W]`` remove ``[n, copies, C, H, W]``."""
    filled = [
        impute(images[sample], masks[run].flatten(0, 1)) for sample, run in _runs(samples.tolist())
    ]
    whole = filled[0] if len(filled) == 1 else torch.cat(filled)
    return whole.view(*masks.shape[:2], *images.shape[1:])


def _runs(values: list[int]) -> Iterator[tuple[int, slice]]:
    """Each value that is repeated, and where."""
    start = 0
    for value, run in itertools.groupby(values):
        stop = start + len(list(run))
        yield value, slice(start, stop)
        start = stop


def _maps_at_once(images: Tensor, copies: int, batch_size: int) -> int:
    """How many maps' images wait for the model: they fill whole batches, if there is room."""
    room = _CHUNK_BYTES_CUDA if images.is_cuda else _CHUNK_BYTES
    most = max(1, room // (images[0].numel() * images.element_size() * copies))
    even = batch_size // math.gcd(batch_size, copies)
    return most // even * even or most
