"""One pass gives every layer's activation and gradient, and leaves the model as it was."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import camfuse
from camfuse.capture import capture
from camfuse.captured import Capture, Captured
from oracle import autograd_pairs, relative_error
from small_models import (
    Branches,
    DeadEnd,
    Head,
    ListTwin,
    Moody,
    OverwrittenIdentity,
    OverwrittenInput,
    OverwrittenSigmoid,
    OverwrittenTwin,
    OverwrittenView,
    Residual,
    SharedView,
    SkipOverIdentity,
    StashedTwin,
    TrainableBuffer,
)

EXACT = 1e-12  # f64 runs the same kernels on the same numbers


def make(kind: type[nn.Module], *args: object, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = kind(*args).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


def image(batch: int = 2, size: tuple[int, int] = (12, 10)) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, *size, dtype=torch.float64, generator=generator)


def pairs(model: nn.Module, x: Tensor, **options: object) -> tuple[Capture, dict]:
    """The capture, and by layer name the pair that was visited."""
    seen: dict[Captured, tuple[Tensor, Tensor]] = {}

    def visit(layer: Captured, target: int, A: Tensor, G: Tensor) -> None:
        seen[layer] = (A.detach().clone(), G.detach().clone())

    found = capture(model, x, visit, **options)
    return found, {layer.name: seen[layer.original] for layer in found.layers}


def assert_agrees(model: nn.Module, x: Tensor, layers: object = "all") -> Capture:
    expected = autograd_pairs(model, x)
    found, got = pairs(model, x, layers=layers)
    assert got
    for name, (A, G) in got.items():
        assert relative_error(A, expected[name][0]) <= EXACT, f"activation of {name}"
        assert relative_error(G, expected[name][1]) <= EXACT, f"gradient of {name}"
    return found


SMALL = [Branches, SkipOverIdentity, Residual, OverwrittenView, Moody, DeadEnd]


@pytest.mark.parametrize("kind", SMALL)
def test_pairs_agree_with_independent_autograd(kind: type[nn.Module]) -> None:
    model = make(kind)
    for _ in range(2):  # the second pass copies only what the first one saw overwritten
        assert_agrees(model, image())


@pytest.mark.parametrize("kind", SMALL)
def test_each_layer_alone_has_the_bits_it_has_among_all(kind: type[nn.Module]) -> None:
    model = make(kind)
    _, together = pairs(model, image(), layers="all")
    for name, (A, G) in together.items():
        base = name.split("#")[0]
        for _ in range(2):
            _, alone = pairs(model, image(), layers=base)
            assert torch.equal(alone[name][0], A), name
            assert torch.equal(alone[name][1], G), name


def test_parallel_branches_each_get_a_root() -> None:
    found = assert_agrees(make(Branches), image(), ["left.1", "right.0"])
    assert [layer.name for layer in found.layers] == ["left.1", "right.0"]


@pytest.mark.parametrize("through", [nn.Identity(), nn.Dropout(), nn.ReLU(inplace=True)])
def test_a_skip_connection_around_a_pass_through_module_keeps_its_gradient(
    through: nn.Module,
) -> None:
    assert_agrees(make(SkipOverIdentity, through), image(), "through")


@pytest.mark.parametrize("kind", [OverwrittenIdentity, OverwrittenTwin, StashedTwin, ListTwin])
def test_whoever_holds_the_rooted_tensor_hangs_on_the_root(kind: type[nn.Module]) -> None:
    """Capturing changes neither the model's output nor, by the choice of layers, a map."""
    model, x = make(kind), image()
    with torch.no_grad():
        expected = model(x).amax(1)
    together, among_all = pairs(model, x, layers="all")
    for name in among_all:
        if together.layers and name.split("#")[0] == name:
            alone, got = pairs(model, x, layers=name)
            assert torch.equal(alone.scores.values[0], expected), name
            assert torch.equal(got[name][0], among_all[name][0]), name
            assert torch.equal(got[name][1], among_all[name][1]), name
            assert alone.warnings == ()


def test_a_shared_view_that_is_overwritten_is_warned_of() -> None:
    found, _ = pairs(make(SharedView), image(), layers="all")
    assert len(found.warnings) == 1
    assert "view: a later module overwrites this view of its input in place" in found.warnings[0]
    assert pairs(make(OverwrittenView), image(), layers="all")[0].warnings == ()


def test_what_autograd_saved_may_be_overwritten() -> None:
    model, x = make(OverwrittenSigmoid), image()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        model(x).sum().backward()
    found = assert_agrees(model, x)
    assert "sigmoid" in [layer.name for layer in found.layers]
    camfuse.cam(model, x, "first")


def test_a_model_that_overwrites_its_input_sees_it_fresh_in_every_attempt() -> None:
    model, x = make(OverwrittenInput), image()
    before = x.clone()
    assert_agrees(model, x)
    assert_agrees(model, x)  # now it overwrites an activation too, and the pass is repeated
    assert model.calls == 5
    assert torch.equal(x, before)


def test_tensors_that_require_grad_besides_the_parameters_change_nothing() -> None:
    model, x = make(TrainableBuffer), image()
    expected = camfuse.layer_cams(model, x)
    model.scale.requires_grad_()
    stack = camfuse.layer_cams(model, x)
    assert torch.equal(stack.flat, expected.flat)
    assert model.scale.requires_grad


def test_a_view_that_is_overwritten_keeps_its_activation_and_gradient() -> None:
    assert_agrees(make(OverwrittenView), image(), "slice")
    assert_agrees(make(OverwrittenView), image(), ["slice.conv", "slice", "relu"])


def test_an_output_overwritten_for_the_first_time_is_noticed() -> None:
    model, x = make(Moody), image()
    passes: list[int] = []
    model.stem.register_forward_hook(lambda *_: passes.append(1))
    assert_agrees(model, x)
    model.in_place = True
    passes.clear()
    assert_agrees(model, x)  # learned "not overwritten", now a surprise
    assert len(passes) == 3  # the oracle's, and two of camfuse
    model.in_place = False
    assert_agrees(model, x)


def test_a_module_called_twice_has_two_names_in_order_of_execution() -> None:
    found = assert_agrees(make(Residual), image(), "leaf")
    assert [one.name for one in found.layers] == ["stem", "norm", "relu", "conv", "relu#2"]


def test_an_alias_is_visited_once_and_listed_under_both_names() -> None:
    model = make(SkipOverIdentity)
    visits: list[str] = []
    found = capture(model, image(), lambda layer, *_: visits.append(layer.name), layers="all")
    by_name = {layer.name: layer for layer in found.layers}
    assert by_name["through"].alias_of is by_name["first"]
    assert visits.count("first") == 1
    assert "through" not in visits
    assert by_name["through"].shown

    stack = camfuse.layer_cams(model, image(), layers="leaf")
    assert "through" not in stack.shown().names
    assert any(one.name == "through" and "first" in one.reason for one in stack.skipped)
    assert torch.equal(stack["through"], stack["first"])


def test_an_overwritten_tensor_is_no_alias() -> None:
    found = assert_agrees(make(Residual), image(), "all")
    assert all(layer.alias_of is None for layer in found.layers)


def test_what_is_not_shown_is_skipped_with_its_reason() -> None:
    found, _ = pairs(make(DeadEnd), image(), layers="leaf")
    reasons = {one.name: one.reason for one in found.skipped}
    assert [layer.name for layer in found.layers] == ["used"]
    assert reasons == {
        "dead": "target does not depend on it",
        "never": "not executed",
        "pool": "no spatial extent (1 x 1): shown by name",
        "classifier": "no spatial extent",
    }
    found, _ = pairs(make(DeadEnd), image(), layers="pool")
    assert [layer.shape for layer in found.layers] == [(4, 1, 1)]


class BoomError(Exception):
    pass


def snapshot(model: nn.Module) -> dict[str, object]:
    return {
        "training": [module.training for module in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "buffers": [(id(b), b.clone()) for b in model.buffers()],
        "hooks": [len(module._forward_hooks) for module in model.modules()],
        "rng": torch.get_rng_state(),
        "grad_mode": torch.is_grad_enabled(),
    }


def assert_same(before: object, after: object) -> None:
    if isinstance(before, Tensor):
        assert isinstance(after, Tensor)
        assert torch.equal(before, after)
    elif isinstance(before, dict):
        assert isinstance(after, dict)
        for key in before:
            assert_same(before[key], after[key])
    elif isinstance(before, list | tuple):
        assert isinstance(after, list | tuple)
        for one, other in zip(before, after, strict=True):
            assert_same(one, other)
    else:
        assert before == after


def explode(*_: object) -> Tensor:
    raise BoomError


class Counting(Residual):
    """Writes to buffers in eval mode too, one of them new."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("last", None)

    def body(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x.mean()
        return super().body(x)


def test_buffers_that_the_model_writes_are_as_before() -> None:
    model = make(Counting)
    camfuse.layer_cams(model, image())
    assert float(model.calls) == 0
    assert model.last is None


@pytest.mark.parametrize("where", ["nowhere", "forward", "visit", "target"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("grad_mode", [False, True])
def test_the_model_is_as_before_on_every_path_out(
    where: str, training: bool, grad_mode: bool
) -> None:
    model = make(Residual)
    model.conv.weight.requires_grad_(False)
    model.stem.weight.grad = torch.ones_like(model.stem.weight)
    model.train(training)
    if where == "forward":
        model.conv.register_forward_pre_hook(explode)
    x = image()
    with torch.set_grad_enabled(grad_mode):
        before = snapshot(model)
        try:
            capture(
                model,
                x,
                explode if where == "visit" else lambda *_: None,
                target=explode if where == "target" else None,
                allow_training=training,
            )
        except BoomError:
            assert where != "nowhere"
        else:
            assert where == "nowhere"
        assert_same(before, snapshot(model))
    assert not x.requires_grad


def test_captures_nest() -> None:
    model = make(Residual)
    expected = camfuse.layer_cams(model, image(), layers="leaf")

    def target(output: Tensor) -> Tensor:
        inner = camfuse.layer_cams(model, image(), layers="leaf")
        assert torch.equal(inner.flat, expected.flat)
        return output.amax(1)

    before = snapshot(model)
    outer = camfuse.layer_cams(model, image(), layers="leaf", target=target)
    assert_same(before, snapshot(model))
    assert torch.equal(outer.flat, expected.flat)


def test_five_hundred_calls_leave_nothing_behind() -> None:
    model = make(Residual)
    camfuse.layer_cams(model, image(1))
    gc.collect()

    def tensors() -> int:
        return sum(issubclass(type(one), Tensor) for one in gc.get_objects())

    before = tensors()
    watched = []
    for _ in range(500):
        stack = camfuse.layer_cams(model, image(1))
        watched.append(weakref.ref(stack.flat))
    del stack
    assert sum(ref() is not None for ref in watched) == 0  # freed at once, without the collector
    gc.collect()
    assert tensors() <= before


def test_graph_and_activations_are_freed_without_the_collector() -> None:
    model = make(Residual)
    outputs: list[weakref.ref] = []
    handle = model.conv.register_forward_hook(lambda m, a, o: outputs.append(weakref.ref(o)))
    gc.disable()
    try:
        camfuse.layer_cams(model, image())
        assert outputs
        assert all(ref() is None for ref in outputs)
    finally:
        gc.enable()
        handle.remove()


def test_training_mode_is_refused_with_advice_unless_asked_for() -> None:
    model = make(Residual)
    model.norm.train()
    with pytest.raises(ValueError, match=r"'norm' is in training mode.*model\.eval\(\)"):
        camfuse.layer_cams(model, image())
    camfuse.layer_cams(model, image(), allow_training=True)


def test_inference_tensor_weights_are_refused() -> None:
    with torch.inference_mode():
        model = make(Residual)
        with pytest.raises(ValueError, match="inference tensors"):
            camfuse.layer_cams(model, image())


def test_callers_may_be_in_inference_or_no_grad_mode() -> None:
    model, x = make(Residual), image()
    expected = camfuse.layer_cams(model, x).flat
    with torch.no_grad():
        assert torch.equal(camfuse.layer_cams(model, x).flat, expected)
    with torch.inference_mode():
        assert torch.equal(camfuse.layer_cams(model, image()).flat, expected)


def test_frozen_parameters_and_inputs_that_require_grad_change_nothing() -> None:
    model, x = make(Residual), image()
    expected = camfuse.layer_cams(model, x).flat
    leaf = image().requires_grad_()
    assert torch.equal(camfuse.layer_cams(model, leaf * 1).flat, expected)
    assert torch.equal(camfuse.layer_cams(model, leaf).flat, expected)
    assert leaf.grad is None
    assert torch.equal(camfuse.layer_cams(model.requires_grad_(False), x).flat, expected)


class Checkpointed(Head):
    def __init__(self, reentrant: bool) -> None:
        super().__init__(4)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())
        self.reentrant = reentrant

    def body(self, x: Tensor) -> Tensor:
        return checkpoint(self.block, self.first(x), use_reentrant=self.reentrant)


def test_layers_inside_checkpoints_are_captured_once() -> None:
    found = assert_agrees(make(Checkpointed, False), image(), "leaf")
    assert [one.name for one in found.layers] == ["first", "block.0", "block.1"]


def test_reentrant_checkpoints_are_left_to_torch_to_refuse() -> None:
    model = make(Checkpointed, True)
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        camfuse.layer_cams(model, image())
    assert_same(before, snapshot(model))


@pytest.mark.parametrize("layer", ["block.0", "block.1"])
def test_a_root_inside_a_checkpoint_survives_recomputation(layer: str) -> None:
    assert_agrees(make(Checkpointed, False), image(), layer)


def test_compiled_models_run_eagerly_under_their_own_names() -> None:
    model, x = make(Residual), image()
    expected = camfuse.layer_cams(model, x)
    compiled = torch.compile(model, backend="eager")
    compiled(x)  # hooks added to an already compiled graph would never fire
    stack = camfuse.layer_cams(compiled, x)
    assert stack.names == expected.names
    assert torch.equal(stack.flat, expected.flat)


def test_wrappers_for_several_devices_are_looked_through() -> None:
    model, x = make(Residual), image()
    wrapped = nn.DataParallel(model)
    stack = camfuse.layer_cams(wrapped, x, layers=["stem", "module.conv"])
    assert stack.names == ("stem", "conv")


def test_autocast_and_channels_last_are_followed() -> None:
    model, x = make(Residual).float(), image().float()
    expected = camfuse.layer_cams(model, x)
    last = camfuse.layer_cams(model.to(memory_format=torch.channels_last), x)
    for name in expected.names:
        assert relative_error(last[name], expected[name]) <= 1e-4
    with torch.autocast("cpu", torch.bfloat16):
        half = camfuse.layer_cams(model, x)
    for name in expected.names:
        assert half[name].dtype == torch.float32
        assert relative_error(half[name], expected[name]) <= 0.1


def test_create_graph_lets_a_map_stand_in_a_training_loss() -> None:
    torch.manual_seed(0)
    model, x = make(Residual).train(), image()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(5):
        stack = camfuse.layer_cams(
            model,
            x,
            method="layercam",
            layers="conv",
            target=1,
            allow_training=True,
            create_graph=True,
        )
        assert all(p.requires_grad for p in model.parameters())
        maps = stack["conv"]
        loss = maps.square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert model.stem.weight.grad.abs().sum() > 0
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)


def test_create_graph_roots_the_input_only_if_nothing_else_requires_grad() -> None:
    model, x = make(Residual).requires_grad_(False), image()
    plain = camfuse.layer_cams(model, x)
    attached = camfuse.layer_cams(model, x, create_graph=True)
    assert attached.flat.requires_grad
    assert relative_error(attached.flat.detach(), plain.flat) <= EXACT
    assert not x.requires_grad


def test_keyword_and_positional_inputs() -> None:
    class TwoInputs(Residual):
        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return super().forward(x * scale)

    model, x = make(TwoInputs), image()
    scale = torch.tensor(2.0, dtype=torch.float64)
    by_position = camfuse.layer_cams(model, (x, scale))
    by_name = camfuse.layer_cams(model, {"x": x, "scale": scale})
    assert torch.equal(by_position.flat, by_name.flat)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.empty(0, 3, 8, 8), "the batch is empty"),
        ((), "at least one tensor"),
        ({"x": 3}, "at least one tensor"),
        (None, "expected a tensor, a sequence .* got NoneType"),
    ],
)
def test_bad_inputs_are_named(inputs: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"inputs: .*{message}"):
        camfuse.layer_cams(make(Residual), inputs)


def test_a_target_that_depends_on_no_layer_is_an_error() -> None:
    with pytest.raises(ValueError, match="depends on no selected layer"):
        camfuse.layer_cams(make(DeadEnd), image(), layers="dead")
    with pytest.raises(ValueError, match="depends on no selected layer"):
        camfuse.layer_cams(make(DeadEnd), image(), target=lambda out: out.detach().amax(1))


def test_another_thread_may_use_the_model_meanwhile() -> None:
    model, x = make(Residual), image()
    expected = model(x).detach()
    answers: list[Tensor] = []

    def run_elsewhere(*_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=lambda: answers.append(model(x).detach()))
            thread.start()
            thread.join()

    stack = camfuse.layer_cams(model, x)
    model.conv.register_forward_pre_hook(run_elsewhere)
    assert torch.equal(camfuse.layer_cams(model, x).flat, stack.flat)
    assert len(answers) == 1
    assert torch.equal(answers[0], expected)


def test_a_model_on_another_device_is_refused_before_it_runs() -> None:
    with pytest.raises(ValueError, match=r"inputs: .* on the CPU and on CUDA devices, got meta"):
        camfuse.layer_cams(make(Residual), image().to("meta"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (torch.jit.script(nn.Conv2d(3, 4, 1)), "TorchScript modules run no hooks"),
        (nn.Sequential(nn.LazyConv2d(4, 1)).eval(), "run the model once first"),
        (lambda x: x, "expected a torch.nn.Module, got function"),
    ],
)
def test_models_that_cannot_be_captured_are_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=f"model: .*{message}"):
        camfuse.layer_cams(model.eval() if isinstance(model, nn.Module) else model, image())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [3]}, "layers: expected names and modules, got 3"),
        ({"layers": None}, "layers: expected names or modules, got None"),
        ({"target": "cat"}, "target: expected None, a class index.* got 'cat'"),
        ({"method": 3}, "method: expected one of gradcam"),
        ({"method": [3]}, "method: expected one of gradcam"),
    ],
)
def test_options_of_the_wrong_kind_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        camfuse.layer_cams(make(Residual), image(), **options)


def test_ddp_wrappers_are_looked_through(tmp_path: Path) -> None:
    model, x = make(Residual), image()
    expected = camfuse.layer_cams(model, x)
    store = f"file://{tmp_path}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        stack = camfuse.layer_cams(wrapped, x)
        wrapped(x).sum().backward()  # still trains
    finally:
        torch.distributed.destroy_process_group()
    assert stack.names == expected.names
    assert torch.equal(stack.flat, expected.flat)
