"""Frames leave a GPU through pinned memory: in order, no earlier than they are there, not too many.

A stand-in for a GPU queues what streams are given and does none of it before somebody waits for an
event, so that whatever is read too early is garbage.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from camfuse import encoder, pinned
from camfuse.pinned import through_pinned_memory

aten = torch.ops.aten
FRAMES, GARBAGE = 12, 0xEE


class Gpu(TorchDispatchMode):
    """Streams, events and pinned memory, as far as :mod:`camfuse.pinned` uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.streams: list[Stream] = []
        self.current = Stream(self, "render")
        self.pinned: list[weakref.ref] = []
        self.most_pinned = self.ordinary = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is aten.empty.memory_format:
            in_pinned_memory = kwargs.pop("pin_memory", False)
            made = func(*args, **kwargs).fill_(GARBAGE)
            self._count(made, in_pinned_memory)
            return made
        if func is aten.copy_.default and self.current.name == "copy":
            target, source, non_blocking = args
            assert non_blocking
            self.current.do(f"copied {int(source[0, 0])}", lambda: func(target, source))
            return target
        return func(*args, **kwargs)

    def _count(self, made: Tensor, in_pinned_memory: bool) -> None:
        if not in_pinned_memory:
            self.ordinary += 1
            return
        self.pinned.append(weakref.ref(made.untyped_storage()))
        self.most_pinned = max(self.most_pinned, self.pinned_now())

    def finish(self) -> None:
        """Does what is left to do; nothing is kept for it afterwards."""
        for stream in self.streams:
            stream.run(len(stream.queue))

    def pinned_now(self) -> int:
        return sum(one() is not None for one in self.pinned)

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before


class Stream:
    """What it is given is done in order, once somebody waits."""

    device = torch.device("cpu")

    def __init__(self, gpu: Gpu, name: str) -> None:
        self.gpu, self.name = gpu, name
        gpu.streams.append(self)
        self.queue: list[tuple[str, Callable[[], object]]] = []

    def do(self, what: str, work: Callable[[], object]) -> None:
        self.gpu.log.append(f"queued {what}")
        self.queue.append((what, work))

    def wait_stream(self, other: Stream) -> None:
        until = len(other.queue)
        self.queue.append(("", lambda: other.run(until)))

    def run(self, until: int) -> None:
        for i in range(until):
            what, work = self.queue[i]
            self.queue[i] = ("", lambda: None)
            work()
            if what:
                self.gpu.log.append(what)


class Event:
    def __init__(self, blocking: bool) -> None:
        assert blocking  # else the processor spins

    def record(self, stream: Stream) -> None:
        self.stream, self.until = stream, len(stream.queue)

    def synchronize(self) -> None:
        self.stream.run(self.until)


@pytest.fixture
def gpu(monkeypatch) -> Iterator[Gpu]:
    gpu = Gpu()
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(gpu, "copy"))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", gpu.stream)
    kept = []
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: kept.append(stream.name))
    with gpu:
        yield gpu
    assert set(kept) <= {"copy"}
    assert len(kept) == sum(line.startswith("queued copied") for line in gpu.log)


def rendered(gpu: Gpu, count: int = FRAMES, fails_at: int | None = None) -> Iterator[Tensor]:
    """Chunks ``[2, 3]``, each filled with its number, when the render stream gets that far."""
    for i in range(count):
        if i == fails_at:
            raise RuntimeError("rendering failed")
        chunk = torch.full((2, 3), i, dtype=torch.uint8)
        gpu.current.do(f"rendered {i}", lambda: None)
        yield chunk


def numbers(chunks: list[Tensor]) -> list[int]:
    assert all((one == one[0, 0]).all() for one in chunks)
    return [int(one[0, 0]) for one in chunks]


def test_chunks_arrive_in_order_and_whole(gpu) -> None:
    seen = [
        (int(chunk[0, 0]), bool((chunk == chunk[0, 0]).all()))
        for chunk in through_pinned_memory(rendered(gpu), gpu.current)
    ]
    assert seen == [(i, True) for i in range(FRAMES)]
    assert gpu.ordinary == 0


def test_each_is_copied_after_it_is_rendered_while_the_next_ones_are_under_way(gpu) -> None:
    for chunk in through_pinned_memory(rendered(gpu, 4), gpu.current, ahead=2):
        gpu.log.append(f"encoded {int(chunk[0, 0])}")
    queued = [f"queued {what} {i}" for i in range(4) for what in ("rendered", "copied")]
    done = [f"{what} {i}" for i in range(4) for what in ("rendered", "copied", "encoded")]
    assert [line for line in gpu.log if line in queued] == queued
    assert [line for line in gpu.log if line not in queued] == done
    for i in range(2):  # the host waits for none before two more are on their way
        assert gpu.log.index(f"queued copied {i + 2}") < gpu.log.index(f"copied {i}")


def test_one_who_keeps_all_chunks_gets_ordinary_memory_for_the_rest(gpu) -> None:
    kept = list(through_pinned_memory(rendered(gpu), gpu.current, ahead=1, slots=3))
    assert numbers(kept) == list(range(FRAMES))
    assert gpu.most_pinned == 3
    assert gpu.ordinary == FRAMES - 3


@pytest.mark.parametrize("keep", [lambda x: x, lambda x: x[1:], lambda x: x.detach().numpy()])
def test_a_slot_is_in_use_as_long_as_anything_shows_its_memory(gpu, keep) -> None:
    kept = []
    for chunk in through_pinned_memory(rendered(gpu), gpu.current, ahead=1, slots=4):
        part = memoryview(keep(chunk).reshape(-1)[:1].__array__()).cast("B")
        del chunk
        assert gpu.pinned_now() <= 4
        kept = [*kept, part][-2:]
        assert [one[0] for one in kept] == [*range(part[0] - 1, part[0] + 1)][-len(kept) :]
    assert gpu.ordinary == 0
    del part, kept
    assert gpu.pinned_now() == 0


def test_a_video_writer_and_all_that_waits_for_it_have_a_slot(gpu) -> None:
    """A writer so slow that its queue is always full needs no ordinary memory."""
    queue: list[memoryview] = []
    for chunk in through_pinned_memory(rendered(gpu, 40), gpu.current):
        queue = [*queue, chunk.numpy().data.cast("B")][-(encoder._QUEUED_CHUNKS + 1) :]
    assert gpu.ordinary == 0
    assert gpu.most_pinned == pinned._AHEAD + 1 + encoder._QUEUED_CHUNKS + 1


@pytest.mark.parametrize("after", [0, 1, 5])
def test_an_iterator_that_is_abandoned_keeps_nothing(gpu, after) -> None:
    chunks = through_pinned_memory(rendered(gpu), gpu.current)
    gc.disable()
    try:
        for _ in range(after):
            next(chunks)
        del chunks
        gpu.finish()
        assert gpu.pinned_now() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("fails_at", [0, 1, 4])
def test_an_error_of_rendering_is_raised_and_keeps_nothing(gpu, fails_at) -> None:
    gc.disable()
    try:
        with pytest.raises(RuntimeError, match="rendering failed") as caught:
            list(through_pinned_memory(rendered(gpu, fails_at=fails_at), gpu.current))
        del caught
        gpu.finish()
        assert gpu.pinned_now() == 0
        assert gpu.log.count("rendered 0") == min(fails_at, 1)
    finally:
        gc.enable()


def test_an_error_of_the_consumer_keeps_nothing(gpu) -> None:
    def consume() -> None:
        for chunk in through_pinned_memory(rendered(gpu), gpu.current):
            if chunk[0, 0] == 3:
                raise OSError("disk full")

    gc.disable()
    try:
        with pytest.raises(OSError, match="disk full") as caught:
            consume()
        del caught
        gpu.finish()
        assert gpu.pinned_now() == 0
    finally:
        gc.enable()
