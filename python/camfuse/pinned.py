"""From a GPU to the host through pinned memory, on a stream of its own: no side stands still.

::

    render stream   render 0 | render 1 | render 2 |
    copy stream              | copy 0   | copy 1   | copy 2
    host                                | encode 0 | encode 1

A slot of the ring is nothing but the memory of the tensor that the consumer gets. Torch gives it
out again only when no tensor, array or memoryview of it is left, in an encoder's queue for one, and
the copy into it is done. So nothing has to be handed back, nothing can be overwritten that somebody
may still read, and nobody can wait for a slot that never comes: whoever keeps more than there are
gets ordinary memory.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

_AHEAD = 2  # copies under way while the consumer has a chunk
# Those, the next one, the four that a VideoWriter holds (three wait, one is written), and a spare.
_SLOTS = 8


def through_pinned_memory(
    chunks: Iterable[Tensor], stream: torch.cuda.Stream, *, ahead: int = _AHEAD, slots: int = _SLOTS
) -> Iterator[Tensor]:
    """The same chunks on the host, in order.

    Args:
        chunks: uint8, computed on ``stream``; the next ones are asked for before a chunk is given.
        stream: On whose device the chunks are.
        ahead: How many are asked for beyond the one that is given.
        slots: How many may lie in pinned memory at once.
    """
    ring = _Ring(slots)
    copies = torch.cuda.Stream(stream.device)  # type: ignore[no-untyped-call]
    under_way: deque[tuple[Tensor, torch.cuda.Event]] = deque()
    for chunk in chunks:
        under_way.append(_begin(chunk, stream, copies, ring))
        del chunk
        if len(under_way) > ahead:
            yield _finished(*under_way.popleft())
    while under_way:
        yield _finished(*under_way.popleft())


def _begin(
    chunk: Tensor, made_on: torch.cuda.Stream, copies: torch.cuda.Stream, ring: _Ring
) -> tuple[Tensor, torch.cuda.Event]:
    """A copy of ``chunk``, and what tells when it is there."""
    host = ring.slot(chunk.shape)
    copies.wait_stream(made_on)
    with torch.cuda.stream(copies):
        host.copy_(chunk, non_blocking=True)
    # Whatever becomes of the chunk, its memory is not used again before it is copied.
    chunk.record_stream(copies)
    # Who waits sleeps: the encoder has better use for the processor.
    done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    done.record(copies)
    return host, done


def _finished(host: Tensor, done: torch.cuda.Event) -> Tensor:
    done.synchronize()
    return host


class _Ring:
    """So many pinned tensors whose memory is in use; beyond that, ordinary ones."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._in_use: list[weakref.ref[torch.UntypedStorage]] = []

    def slot(self, shape: torch.Size) -> Tensor:
        """An uninitialised uint8 tensor."""
        self._in_use = [one for one in self._in_use if one() is not None]
        pinned = len(self._in_use) < self._slots
        tensor = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        if pinned:
            # Lives as long as any tensor of this memory does, be it the base of an array.
            self._in_use.append(weakref.ref(tensor.untyped_storage()))
        return tensor
