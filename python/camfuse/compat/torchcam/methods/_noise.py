"""Noise from the caller's random generator, beside passes that must not disturb it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Noise = Callable[[Sequence[int]], Tensor]
"""From a size to standard normal numbers, f32 on the CPU."""


@contextlib.contextmanager
def callers_noise() -> Iterator[Noise]:
    """Draws as torch's generator of the CPU would, which has moved on by as much afterwards."""
    generator = torch.Generator()
    generator.set_state(torch.get_rng_state())
    yield lambda size: torch.empty(tuple(size)).normal_(generator=generator)
    torch.set_rng_state(generator.get_state())
