"""Threads at the same time: equal bits to each alone, and everything is left as it was found."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import camfuse
from camfuse.quiet import quiet
from camfuse.render import render
from small_models import OverwrittenSigmoid, Residual, SkipOverIdentity

LONG = 60  # seconds: only a deadlock takes as long
ROUNDS = 25


def at_once(*jobs: Callable[[], object]) -> list[object]:
    """The results of all jobs, each in a thread of its own; raises what they raise."""
    results: list[object] = [None] * len(jobs)
    errors: list[BaseException] = []
    ready = threading.Barrier(len(jobs))

    def run(i: int) -> None:
        try:
            ready.wait(LONG)
            results[i] = jobs[i]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive(), "deadlock"
    if errors:
        raise errors[0]
    return results


def repeated(job: Callable[[], object]) -> Callable[[], list[object]]:
    return lambda: [job() for _ in range(ROUNDS)]


def made(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return kind().eval()


def image(seed: int = 0) -> Tensor:
    return torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(seed))


def maps(model: nn.Module, x: Tensor, *methods: str) -> Tensor:
    methods = methods or ("gradcam", "layercam", "randomcam")
    return camfuse.layer_cams(model, x, method=methods, layers="all").flat


def state(model: nn.Module) -> list[object]:
    """What a capture may not change, tensors by identity and content."""
    tensors = [
        (name, id(one), one.requires_grad, one.grad, one.detach().clone())
        for group in (model.named_parameters(), model.named_buffers())
        for name, one in group
    ]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    return [hooks, [module.training for module in model.modules()], *tensors]


def process_state() -> list[object]:
    return [
        torch.backends.mha.get_fastpath_enabled(),
        torch.get_rng_state().tolist(),
        torch._dynamo.eval_frame._stance.stance,
        torch.is_grad_enabled(),
    ]


def same(one: object, other: object) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("kinds", [(Residual, SkipOverIdentity), (OverwrittenSigmoid,) * 2])
def test_two_models(kinds: Sequence[type[nn.Module]]) -> None:
    models = [made(kind, seed) for seed, kind in enumerate(kinds)]
    alone = [maps(made(kind, seed), image(seed)) for seed, kind in enumerate(kinds)]
    before = [process_state(), *map(state, models)]
    results = at_once(
        repeated(lambda: maps(models[0], image(0))), repeated(lambda: maps(models[1], image(1)))
    )
    for expected, found in zip(alone, results, strict=True):
        assert all(torch.equal(expected, one) for one in found)
    assert same([process_state(), *map(state, models)], before)


def test_one_model_for_two_threads() -> None:
    model = made(Residual)
    alone = [maps(made(Residual), image(i)) for i in range(2)]
    before = state(model)
    results = at_once(*(repeated(lambda i=i: maps(model, image(i))) for i in range(2)))
    for expected, found in zip(alone, results, strict=True):
        assert all(torch.equal(expected, one) for one in found)
    assert same(state(model), before)


def test_rendering_saving_and_loading_while_another_thread_captures(tmp_path: Path) -> None:
    model, x = made(Residual), image()
    stack = camfuse.layer_cams(model, x)
    photograph = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)

    def frames() -> Tensor:
        return torch.cat(list(render(stack, photograph, size=64, pixel_format="i420")))

    def saved_and_loaded() -> Tensor:
        # Both threads write the same file: whoever reads it finds one of them whole.
        return camfuse.load_stack(camfuse.save_stack(stack, tmp_path / "maps.safetensors")).flat

    jobs = (lambda: maps(model, x), frames, saved_and_loaded, saved_and_loaded)
    alone = [job() for job in jobs]
    results = at_once(*map(repeated, jobs))
    for expected, found in zip(alone, results, strict=True):
        assert all(torch.equal(expected, one) for one in found)
    assert [path.name for path in tmp_path.iterdir()] == ["maps.safetensors"]


class Meeting(nn.Module):
    """Draws at random and then waits for another thread, if that one gets to run at all."""

    def __init__(self, body: nn.Module, arrived: threading.Event, other: threading.Event) -> None:
        super().__init__()
        self.body, self.arrived, self.other = body, arrived, other

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(1)
        self.arrived.set()
        self.other.wait(0.3)
        return self.body(x)


def twins() -> tuple[nn.Module, nn.Module]:
    return made(Residual), made(Residual)


def relatives() -> tuple[nn.Module, nn.Module]:
    model = made(Residual)
    return model, model


def compiled() -> tuple[nn.Module, nn.Module]:
    return tuple(torch.compile(one, backend="eager") for one in twins())


def overwriting() -> tuple[nn.Module, nn.Module]:
    return made(OverwrittenSigmoid), made(OverwrittenSigmoid)


@pytest.mark.parametrize("bodies", [twins, relatives, compiled, overwriting])
def test_whoever_comes_first_and_leaves_first_takes_nothing_away(
    bodies: Callable[[], tuple[nn.Module, nn.Module]],
) -> None:
    """The second begins while the first is at work, and is still at work when the first ends."""
    one, other = bodies()
    expected = maps(one, image(), "gradcam")
    first_inside, second_inside, first_done = (threading.Event() for _ in range(3))
    first = Meeting(one, first_inside, second_inside).eval()
    second = Meeting(other, second_inside, first_done).eval()
    before = [process_state(), state(one), state(other)]

    def come_first() -> Tensor:
        found = maps(first, image(), "gradcam")
        first_done.set()
        return found

    def come_second() -> Tensor:
        first_inside.wait(LONG)
        return maps(second, image(), "gradcam")

    for found in at_once(come_first, come_second):
        assert torch.equal(found[: expected.numel()], expected)
    assert same([process_state(), state(one), state(other)], before)


def test_filters_of_warnings_survive_threads_that_overlap() -> None:
    before = list(warnings.filters)
    first_inside, second_inside, first_done = (threading.Event() for _ in range(3))

    def come_first() -> None:
        with quiet():
            first_inside.set()
            second_inside.wait(0.3)
        first_done.set()

    def come_second() -> None:
        first_inside.wait(LONG)
        with quiet():
            second_inside.set()
            first_done.wait(0.3)

    at_once(come_first, come_second)
    assert list(warnings.filters) == before
