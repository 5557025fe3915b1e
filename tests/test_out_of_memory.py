"""A device that runs out of memory in the middle of a pass: everything is restored and let go.

The errors are raised by hand here, on the CPU; :mod:`test_cuda_capture` runs out for real.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import camfuse
from camfuse import ops
from camfuse.capture import capture
from small_models import OverwrittenView, Residual
from test_capture import assert_same, image, make, snapshot


@pytest.fixture(autouse=True)
def without_the_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def run_out(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")


def run_out_at(where: str, model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory ends in the last layer's forward, in its op, or in the first layer's."""
    if where == "forward":
        model.conv.register_forward_pre_hook(run_out)
        return
    sizes = iter(range(2 if where == "last op" else 1, 0, -1))
    layer_cam = torch.ops.camfuse.layer_cam.default

    def until_full(*args: object) -> object:
        return layer_cam(*args) if next(sizes, 0) > 1 else run_out()

    monkeypatch.setattr(ops, "_call", lambda op, *args: until_full(*args))


def watch(model: nn.Module) -> list[weakref.ref]:
    """Weak references to the memory of the model's input and of every module's output."""
    seen: list[weakref.ref] = []

    def note(module: nn.Module, args: object, output: Tensor) -> None:
        seen.append(weakref.ref(output.untyped_storage()))

    model.register_forward_pre_hook(lambda module, args: note(module, (), args[0]))
    for module in model.modules():
        module.register_forward_hook(note)
    return seen


@pytest.mark.parametrize("where", ["forward", "first op", "last op"])
@pytest.mark.parametrize("kind", [Residual, OverwrittenView])
@pytest.mark.parametrize("learned", [False, True])
def test_nothing_of_the_pass_is_left_though_the_error_is_kept(
    where: str, kind: type[nn.Module], learned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = make(kind), image()
    if learned:
        camfuse.layer_cams(model, x)
    outputs = watch(model)
    with monkeypatch.context() as patch:
        run_out_at(where, model, patch)
        before = snapshot(model)
        with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate") as caught:
            camfuse.layer_cams(model, x)
        assert_same(before, snapshot(model))
    assert outputs
    assert not any(one() is not None for one in outputs)
    assert any("max_memory=" in note for note in caught.value.__notes__)


def test_gradients_and_copies_are_let_go_too() -> None:
    model, seen = make(Residual), []

    def visit(layer: object, target: int, A: Tensor, G: Tensor) -> None:
        seen.extend(weakref.ref(one.untyped_storage()) for one in (A, G))
        if len(seen) > 2:
            run_out()

    with pytest.raises(torch.OutOfMemoryError) as caught:
        capture(model, image(), visit, layers="all")
    assert len(seen) == 4
    assert not any(one() is not None for one in seen)
    assert caught.value.__traceback__ is not None


def test_a_smaller_batch_may_be_tried_where_the_error_is_caught() -> None:
    model, x = make(Residual), image(4)
    expected = camfuse.layer_cams(model, x[:1])

    def at_most_one(module: nn.Module, args: tuple[Tensor]) -> None:
        if len(args[0]) > 1:
            run_out()

    model.conv.register_forward_pre_hook(at_most_one)
    try:
        camfuse.layer_cams(model, x)
    except torch.OutOfMemoryError:
        stack = camfuse.layer_cams(model, x[:1])
    assert torch.equal(stack.flat, expected.flat)


def test_a_one_layer_map_lets_go_of_everything_too() -> None:
    model = make(Residual)
    outputs = watch(model)
    model.classifier.register_forward_pre_hook(run_out)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        camfuse.cam(model, image(), "stem")
    assert outputs
    assert not any(one() is not None for one in outputs)
    del caught


def test_memory_that_an_op_itself_lacks_is_told_as_torch_tells_it() -> None:
    def op(x: torch.Tensor) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with torch.no_grad(), pytest.raises(torch.OutOfMemoryError, match="Tried to allocate 2"):
        ops._call(op, torch.ones(1))
