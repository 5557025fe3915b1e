"""Only what follows a layer is computed again, and it is the same as running everything.

The oracle replaces the layer's output with a forward hook and runs the whole model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

import small_models
from camfuse.intercept import intercepted
from camfuse.replay import Arguments, Replay, same_outputs
from small_models import Head, OverwrittenInput, Residual

COPIES = 3


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def image(size: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


def copies_of(x: Tensor) -> Arguments:
    return lambda n: ((x.expand(n, *x.shape[1:]),), {})


def changed(A: Tensor) -> Tensor:
    """Three activations instead of one."""
    factors = torch.tensor([0.0, 0.5, -1.5]).reshape(COPIES, *[1] * (A.ndim - 1))
    return A.expand(COPIES, *A.shape[1:]) * factors


def everything_run(model: nn.Module, layer: nn.Module, call: int, x: Tensor, A: Tensor) -> object:
    """The whole model, with a hook that replaces what the layer returned."""
    calls = 0

    def hook(*_: object) -> Tensor | None:
        nonlocal calls
        calls += 1
        return A.clone() if calls == call else None

    handle = layer.register_forward_hook(hook)
    try:
        return model(x.expand(len(A), *x.shape[1:]).clone())
    finally:
        handle.remove()


def assert_replays(model: nn.Module, layer: nn.Module, x: Tensor, call: int = 1) -> Replay:
    replay = Replay(model, layer, call)
    output, A = replay.record(copies_of(x))
    assert same_outputs(output, model(x.clone()))
    activation = changed(A)
    for _ in range(3):  # the first run proves, the others rely on it
        found = replay.run(activation.clone())
        assert same_outputs(found, everything_run(model, layer, call, x, activation))
    return replay


class Twice(Head):
    """One module is called several times, once inside a block that is remembered as a whole."""

    class Block(nn.Module):
        def __init__(self, shared: nn.Module) -> None:
            super().__init__()
            self.shared = shared

        def forward(self, x: Tensor) -> Tensor:
            return self.shared(self.shared(x)) + 1

    def __init__(self) -> None:
        super().__init__(3)
        self.shared = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())
        self.block = self.Block(self.shared)

    def body(self, x: Tensor) -> Tensor:
        return self.shared(self.shared(self.block(x)) * 2) + x


class Structured(Head):
    """Modules return tuples, dicts and numbers, and take keywords."""

    class Pair(nn.Module):
        def forward(self, x: Tensor, *, scale: float) -> dict[str, object]:
            return {"both": (x * scale, x.mean()), "width": x.shape[-1], "nothing": None}

    def __init__(self) -> None:
        super().__init__(4)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.pair = self.Pair()
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        found = self.pair(self.first(x), scale=2.0)
        scaled, mean = found["both"]
        return self.second(scaled) * mean / found["width"] + scaled


class Reshaping(Head):
    """The code between modules merges the batch with other axes, which a view forbids."""

    def __init__(self) -> None:
        super().__init__(4)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.second(x)
        return y + x.view(-1, *x.shape[2:]).view(x.shape)


class SequenceFirst(Reshaping):
    """A module puts the batch second, and the code after it counts on its size."""

    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(2).permute(2, 0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.flat = self.Flat()

    def body(self, x: Tensor) -> Tensor:
        x = self.first(x)
        flat = self.flat(x)
        y = self.second(x)
        return y + flat.reshape(-1, len(y), 4).permute(1, 2, 0).reshape(y.shape)


class AcrossTheBatch(SequenceFirst):
    """A module adds up the batch, so that copies change its answer."""

    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(0, keepdim=True)

    def body(self, x: Tensor) -> Tensor:
        x = self.first(x)
        total = self.flat(x)
        return self.second(x) + total


HABITS = [
    *(small_models.Branches, small_models.SkipOverIdentity, small_models.OverwrittenIdentity),
    *(small_models.OverwrittenTwin, small_models.StashedTwin, small_models.ListTwin),
    *(small_models.SharedView, small_models.OverwrittenSigmoid, small_models.TrainableBuffer),
    *(small_models.Residual, small_models.OverwrittenView, small_models.Moody),
    *(small_models.DeadEnd, Twice, Structured, Reshaping),
]
NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "resnet18": (
        lambda: torchvision.models.resnet18(weights=None),
        ["conv1", "layer1.0.relu", "layer2.0.bn2", "layer3.1", "layer4.0.downsample.1", "layer4"],
    ),
    "densenet121": (
        lambda: torchvision.models.densenet121(weights=None),
        ["features.denseblock2.denselayer3.conv1", "features.denseblock4.denselayer9"],
    ),
    "googlenet": (
        lambda: torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False),
        ["inception3b.branch2.1", "inception4e", "inception5b.branch4"],
    ),
    "convnext_tiny": (
        lambda: torchvision.models.convnext_tiny(weights=None),
        ["features.3.1.block.3", "features.7.2"],
    ),
    "swin_t": (
        lambda: torchvision.models.swin_t(weights=None),
        ["features.3.1.norm1", "features.5.2.mlp.0", "features.7.1"],
    ),
    "vit_b_32": (
        lambda: torchvision.models.vit_b_32(weights=None, image_size=64),
        ["conv_proj", "encoder.layers.encoder_layer_5.ln_1", "encoder.layers.encoder_layer_11.mlp"],
    ),
}


@pytest.mark.parametrize("network", HABITS, ids=lambda one: one.__name__)
def test_every_layer_of_awkward_networks(network: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = network().eval()
    executed: list[nn.Module] = []
    handles = [
        module.register_forward_hook(lambda m, a, o: executed.append(m))
        for module in model.modules()
        if module is not model
    ]
    model(image())
    for handle in handles:
        handle.remove()
    for layer in dict.fromkeys(executed):
        if not isinstance(layer, Structured.Pair):
            assert_replays(model, layer, image())


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_of_real_architectures_without_falling_back(name: str) -> None:
    torch.manual_seed(0)
    make, layers = NETWORKS[name]
    model = make().eval()
    for layer in layers:
        replay = assert_replays(model, model.get_submodule(layer), image(64))
        assert replay.refusal is None, layer
        assert replay.as_views, layer  # only what is overwritten in place was copied


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_each_call_of_a_module_that_is_called_several_times(call: int) -> None:
    model = Twice().eval()
    assert assert_replays(model, model.shared, image(), call).refusal is None


def test_a_second_sample_is_recorded_with_what_the_first_one_taught() -> None:
    model = Residual().eval()
    replay = Replay(model, model.conv)
    for seed in (1, 2):
        x = image(seed=seed)
        _, A = replay.record(copies_of(x))
        activation = changed(A)
        for _ in range(3):
            found = replay.run(activation.clone())
            assert same_outputs(found, everything_run(model, model.conv, 1, x, activation))
    assert replay.refusal is None


def computed(model: nn.Module, work: Callable[[], object]) -> list[nn.Module]:
    """The convolutions that computed something."""
    seen: list[nn.Module] = []
    convolutions = [one for one in model.modules() if isinstance(one, nn.Conv2d)]
    handles = [one.register_forward_hook(lambda m, a, o: seen.append(m)) for one in convolutions]
    work()
    for handle in handles:
        handle.remove()
    return seen


def test_what_comes_before_the_layer_is_not_computed_again() -> None:
    model = torchvision.models.resnet18(weights=None).eval()
    replay = Replay(model, model.layer4[1].bn1)
    _, A = replay.record(copies_of(image(64)))
    activation = changed(A)
    replay.run(activation.clone())
    # Hooks still run, so what answers instead must be seen from below: no convolution inside a
    # remembered block is ever called.
    seen = computed(model, lambda: replay.run(activation.clone()))
    assert model.layer4[1].conv2 in seen
    assert not {model.layer1[0].conv1, model.layer3[1].conv2, model.layer4[0].conv1} & set(seen)


def test_code_that_merges_the_batch_gets_copies_instead_of_views() -> None:
    model = Reshaping().eval()
    replay = assert_replays(model, model.second, image())
    assert (replay.refusal, replay.as_views) == (None, False)


@pytest.mark.parametrize(
    ("network", "reason"), [(SequenceFirst, "raises RuntimeError"), (AcrossTheBatch, "another")]
)
def test_where_it_is_not_the_same_everything_runs_and_says_so(
    network: type[SequenceFirst], reason: str
) -> None:
    model = network().eval()
    replay = assert_replays(model, model.second, image())
    assert reason in str(replay.refusal)
    _, A = replay.record(copies_of(image()))
    seen = computed(model, lambda: replay.run(changed(A)))
    assert seen == [model.first, model.second]


def test_an_input_that_the_model_overwrites_is_copied() -> None:
    model = OverwrittenInput().eval()
    x = image()
    before = x.clone()
    replay = Replay(model, model.second)
    _, A = replay.record(copies_of(x))
    for _ in range(4):
        replay.run(changed(A))
    assert torch.equal(x, before)


def test_a_layer_that_returns_more_than_a_tensor_is_an_error() -> None:
    model = Structured().eval()
    with pytest.raises(ValueError, match="expected one tensor from this Pair, got dict"):
        Replay(model, model.pair).record(copies_of(image()))


def test_a_call_that_never_comes_is_an_error() -> None:
    model = Residual().eval()
    with pytest.raises(ValueError, match="call 3 of this ReLU never comes"):
        Replay(model, model.relu, 3).record(copies_of(image()))


@pytest.mark.parametrize("at", ["first", "second"])
def test_the_model_is_restored_after_an_exception(at: str) -> None:
    model = Reshaping().eval()
    model.second.forward = original = model.second.forward  # somebody's own patch must survive
    before = [dict(vars(module)) for module in model.modules()]
    replay = Replay(model, model.second)
    _, A = replay.record(copies_of(image()))

    def fail(*_: object) -> None:
        raise LookupError("mine")

    handle = getattr(model, at).register_forward_hook(fail)
    with pytest.raises(LookupError, match="mine"):
        replay.run(changed(A))
    handle.remove()
    assert [dict(vars(module)) for module in model.modules()] == before
    assert model.second.forward is original


def test_other_threads_use_the_model_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    x, found = torch.ones(1, 2), []
    expected = model(x)
    with intercepted(model.modules(), lambda module, forward: lambda *_: None):
        thread = threading.Thread(target=lambda: found.append(model(x)))
        thread.start()
        thread.join()
        assert model(x) is None
    assert torch.equal(found[0], expected)


class TestSameOutputs:
    def test_rounding_is_forgiven_and_no_more(self) -> None:
        one = torch.tensor([100.0, 1.0])
        assert same_outputs((one, {"a": 1}), (one * (1 + 1e-6), {"a": 1}))
        assert not same_outputs(one, one + torch.tensor([0.0, 1e-2]))

    def test_structure_shape_type_and_numbers_count(self) -> None:
        one = torch.ones(2)
        assert not same_outputs((one,), [one])
        assert not same_outputs(one, torch.ones(1))
        assert not same_outputs(one, one.double())
        assert not same_outputs((one, 1), (one, 2))
        assert not same_outputs(torch.tensor([1, 2]), torch.tensor([1, 3]))

    def test_what_is_not_finite_must_be_so_on_both_sides(self) -> None:
        nan, inf = torch.tensor([torch.nan, 1.0]), torch.tensor([torch.inf, 1.0])
        assert same_outputs(nan, nan.clone())
        assert same_outputs(inf, inf.clone())
        assert not same_outputs(inf, -inf)
        assert not same_outputs(torch.tensor([1.0, 1.0]), inf)
        assert not same_outputs(inf, torch.tensor([1.0, 1.0]))
        assert not same_outputs(nan, inf)
        assert not same_outputs(torch.tensor([0.0, 1.0]), nan)
