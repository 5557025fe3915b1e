"""camfuse's LayerGradCam says what captum's says, and leaves nothing behind."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

pytest.importorskip("captum")

import captum.attr
from captum.attr import LayerAttribution as TheirAttribution
from captum.attr import LayerGradCam as Theirs

from camfuse.compat.captum import LayerAttribution, LayerGradCam
from camfuse.compat.captum.attr import LayerGradCam as FromAttr
from camfuse.compat.captum.attr._core.layer.grad_cam import LayerGradCam as FromCore
from camfuse.compat.captum.attr._utils.attribution import LayerAttribution as FromUtils


class Convolutions(nn.Module):
    """In-place ReLUs, a skip connection, and a branch that reads a layer's input before it."""

    def __init__(self, axes=2):
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        self.first, self.side = conv(3, 4, 3, padding=1), conv(4, 4, 1)
        self.second, self.third = conv(4, 4, 3, padding=1), conv(4, 6, 3)
        self.relu, self.last_relu = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
        self.norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1](4)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(6, 5)

    def forward(self, x, scale=1.0, shift=None):
        x = self.norm(self.relu(self.first(x * scale)))
        x = self.side(x) + self.second(x) + x
        x = self.drop(self.last_relu(self.third(x)))
        if shift is not None:
            x = x + shift[:, :, None, None]
        return self.head(x.flatten(2).mean(2))


class Pairs(nn.Module):
    """A layer that takes two tensors and returns two."""

    class Layer(nn.Module):
        def __init__(self, kind=tuple):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 2, 1)
            self.kind = kind

        def forward(self, x, y):
            return self.kind((self.a(x), self.b(y)))

    def __init__(self, kind=tuple, second=1.0):
        super().__init__()
        self.pair, self.head, self.second = self.Layer(kind), nn.Linear(6, 5), second

    def forward(self, x):
        a, b = self.pair(x.sin(), x.cos())
        b = b * self.second if self.second else b.detach()
        return self.head(torch.cat([a.tanh().mean((2, 3)), b.tanh().mean((2, 3))], 1))


def made(name):
    """A narrow network in eval mode, with something in every running statistic."""
    vision = pytest.importorskip("torchvision").models
    net = {
        "conv": Convolutions,
        "conv1d": lambda: Convolutions(1),
        "conv3d": lambda: Convolutions(3),
        "resnet": lambda: vision.ResNet(vision.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5),
        "densenet": lambda: vision.DenseNet(4, (2, 2), 8, num_classes=5),
        "mobilenet": lambda: vision.mobilenet_v3_small(num_classes=5),
        "vit": lambda: vision.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5),
        "swin": lambda: vision.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=5),
    }[name]()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)  # the head of vision transformers begins at 0
    return net.eval()


def sample(name, batch):
    return torch.randn(batch, 3, *{"conv1d": (32,), "conv3d": (6, 7, 8)}.get(name, (32, 32)))


LAYERS = [
    *(("conv", one) for one in ("first", "relu", "side", "second", "third", "last_relu", "head")),
    *((f"conv{axes}", one) for axes in ("1d", "3d") for one in ("first", "second", "last_relu")),
    *(("resnet", f"layer{one}") for one in ("1.0", "2.0.conv1", "2.0.downsample.0", "4.0.relu")),
    *(("densenet", f"features.{one}") for one in ("conv0", "denseblock1", "norm5")),
    *(("mobilenet", f"features.{one}") for one in ("4", "4.block.2", "12.0")),
    # Tensors that a layer normalisation reads have gradients that add up to 0 over the channels,
    # and tokens the channels last, where means are taken: the others are left.
    *(("vit", one) for one in ("conv_proj", "encoder.layers.encoder_layer_0.mlp.0")),
    ("swin", "features.3.0.mlp.0"),
]
CONV = ("first", "relu", "second", "last_relu", "head")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def net():
    return made("conv")


# On an AMD processor captum's f32 sums of these layers were seen to be 1.5e-6 away from ours.
LONG_SUMS = 3e-6


def assert_same(found, expected, limit=1e-6):
    several = isinstance(expected, tuple)
    assert isinstance(found, tuple) is several
    pairs = zip(found, expected, strict=True) if several else [(found, expected)]
    for ours, theirs in pairs:
        assert (ours.shape, ours.dtype, ours.device) == (theirs.shape, theirs.dtype, theirs.device)
        assert theirs.isfinite().all()
        assert float(theirs.detach().abs().max()) > 0
        assert float((ours - theirs).detach().abs().max() / theirs.detach().abs().max()) <= limit


def assert_parity(forward_func, layer, inputs, *args, limit=1e-6, **kwargs):
    expected = Theirs(forward_func, layer).attribute(inputs, *args, **kwargs)
    found = LayerGradCam(forward_func, layer).attribute(inputs, *args, **kwargs)
    assert_same(found, expected, limit)
    return found


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("name", "layer"), LAYERS)
def test_attributions_of_outputs_are_captum_s(name, layer, batch):
    net, x = made(name), sample(name, batch)
    assert_parity(net, net.get_submodule(layer), x, 2, limit=LONG_SUMS)


@pytest.mark.parametrize(("name", "layer"), LAYERS)
def test_attributions_of_inputs_are_captum_s(name, layer):
    net, x = made(name), sample(name, 2)
    assert_parity(
        net, net.get_submodule(layer), x, 2, attribute_to_layer_input=True, limit=LONG_SUMS
    )


@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("of_input", [True, False])
@pytest.mark.parametrize("layer", CONV)
def test_every_option_means_what_it_means_in_captum(net, layer, of_input, relu, summed):
    x = sample("conv", 2)
    assert_parity(net, net.get_submodule(layer), x, 1, None, of_input, relu, summed)


@pytest.mark.parametrize(
    "target",
    [
        3,
        -1,
        (2,),
        torch.tensor(1),
        torch.tensor([4]),
        torch.tensor([0, 3, 1]),
        [1, 0, 4],
        [(1,), (0,), (4,)],
    ],
)
def test_every_form_of_target_means_what_it_means_in_captum(net, target):
    assert_parity(net, net.third, sample("conv", 3), target)


@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((), None),
        ((1,), None),
        ((1, 1), None),
        ((1,), 0),
        ((5, 2), (3, 1)),
        ((5, 2), (slice(3, 4), 1)),
        ((5, 2), [(3, 1), (0, 0), (4, 1)]),
        ((5, 2, 1), (3, 1)),
        ((5, 2, 3), [(3, 1, 2), (0, 0, 0), (4, 1, 1)]),
    ],
)
def test_outputs_may_have_any_axes(net, shape, target):
    numbers = torch.tensor(shape).prod().long() if shape else 1
    weight = torch.randn(5, int(numbers))
    assert_parity(
        lambda x: (net(x) @ weight).reshape(len(x), *shape), net.third, sample("conv", 3), target
    )


def test_an_output_may_be_one_number_for_the_whole_batch(net):
    x = sample("conv", 3)
    found = assert_parity(lambda x: net(x)[:, 1].sum()[None], net.third, x)
    alone = LayerGradCam(lambda x: net(x)[:, 1].sum(), net.third).attribute(x)
    assert_same(alone, found)


def test_additional_arguments_follow_the_inputs(net):
    x, shift = sample("conv", 2), torch.randn(2, 6)
    assert_parity(net, net.third, x, 1, 0.5)
    assert_parity(net, net.third, x, 1, (0.5, shift))
    assert_parity(net, net.third, (x, torch.tensor(0.3)), 1, shift)


class Runner:
    def __init__(self, net):
        self.net = net

    def scores(self, x):
        return self.net(x).softmax(1)

    def __call__(self, x):
        return self.scores(x)


class Elsewhere(nn.DataParallel):
    """Runs its module in another thread, as it is done with several devices."""

    def forward(self, x):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.module, x).result()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: net.forward,
        lambda net: lambda x: net(x).softmax(1),
        lambda net: functools.partial(net, scale=0.5),
        lambda net: functools.partial(Runner(net).scores),
        lambda net: Runner(net).scores,
        Runner,
        nn.DataParallel,
        lambda net: functools.partial(nn.DataParallel(net), scale=2.0),
        Elsewhere,
        lambda net: functools.partial(Elsewhere(net)),
        lambda net: nn.Sequential(net, nn.Softmax(1)),
    ],
    ids=[
        *("forward", "lambda", "partial", "both", "bound", "call"),
        *("parallel", "inner", "elsewhere", "inner_elsewhere", "sequence"),
    ],
)
def test_anything_that_can_be_called_runs_the_layer(net, wrap):
    forward_func, x = wrap(net), sample("conv", 2)
    assert_parity(forward_func, net.second, x, 1)
    net.train()
    before = copy.deepcopy(net.state_dict())
    LayerGradCam(forward_func, net.second).attribute(x, 1)
    assert_equal(net.state_dict(), before)


def test_a_function_may_take_nothing(net):
    x = sample("conv", 2)
    assert_parity(lambda: net(x), net.third, x, 1)


def test_a_compiled_model_runs_as_it_is_written(net):
    x = sample("conv", 2)
    compiled = torch.compile(net, backend="eager")
    expected = Theirs(net, net.third).attribute(x, 1)
    assert_same(LayerGradCam(compiled, net.third).attribute(x, 1), expected)


@pytest.mark.parametrize("of_input", [True, False])
@pytest.mark.parametrize("kind", [tuple, list])
def test_several_tensors_give_a_tuple(kind, of_input):
    net = Pairs(kind)
    found = assert_parity(net, net.pair, sample("conv", 2), 1, attribute_to_layer_input=of_input)
    assert len(found) == 2


def test_a_tensor_that_the_score_does_not_depend_on_contributes_nothing():
    net = Pairs(second=0)
    first, second = LayerGradCam(net, net.pair).attribute(sample("conv", 2), 1)
    assert first.abs().max() > 0
    assert torch.equal(second, torch.zeros(2, 1, 32, 32))


def test_one_tensor_given_several_times_is_explained_as_often():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def run(x):
        return attention(*3 * [x.sin()])[0].mean(1)

    x = torch.randn(3, 7, 8)
    found = assert_parity(run, attention, x, 1, attribute_to_layer_input=True, limit=LONG_SUMS)
    assert len(found) == 3


class Twice(nn.Module):
    def __init__(self, act=None):
        super().__init__()
        self.act = act or nn.ReLU(inplace=True)
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.act(self.second(self.act(self.first(x)))).mean((2, 3))


@pytest.mark.parametrize("of_input", [True, False])
@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.Identity])
def test_the_last_run_of_a_layer_counts(act, of_input):
    net = Twice(act())
    assert_parity(net, net.act, sample("conv", 2), 1, attribute_to_layer_input=of_input)


def test_the_last_run_counts_where_it_returns_what_the_first_did():
    layer, head = nn.Identity(), nn.Conv2d(3, 4, 3)

    def run(x):
        x = x.sin()
        return head(layer(x) * layer(x)).mean((2, 3))

    assert_parity(run, layer, sample("conv", 2), 1)


@pytest.mark.parametrize("of_input", [True, False])
def test_what_a_layer_or_its_successor_saved_may_be_overwritten(net, of_input):
    """As is fine without gradients: captum's backward pass fails."""

    def run(x, overwrites=True):
        x = net.second(net.first(x)).sigmoid()
        x = x.mul_(2) if overwrites else x * 2
        return net.head(net.third(x).mean((2, 3)))

    x = sample("conv", 2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        Theirs(run, net.second).attribute(x, 1, None, of_input)
    expected = Theirs(run, net.second).attribute(x, 1, False, of_input)
    assert_same(LayerGradCam(run, net.second).attribute(x, 1, None, of_input), expected)


@pytest.mark.parametrize("layer", ["first", "second", "third"])
def test_checkpointed_layers_are_explained(net, layer):
    part = nn.Sequential(net.first, net.relu, net.second)

    def run(x):
        return net.head(net.third(part(x)).mean((2, 3)))

    def run_again(x):
        return net.head(net.third(checkpoint(part, x, use_reentrant=False)).mean((2, 3)))

    x = sample("conv", 2)
    expected = Theirs(run, net.get_submodule(layer)).attribute(x, 1)
    assert_same(LayerGradCam(run_again, net.get_submodule(layer)).attribute(x, 1), expected)


@pytest.mark.parametrize("layer", ["first", "second", "last_relu"])
def test_a_graph_leads_to_the_parameters_and_the_inputs(net, layer):
    def gradients(method):
        torch.manual_seed(1)
        x = sample("conv", 2).requires_grad_()
        found = method(net, net.get_submodule(layer)).attribute(
            x, 1, grad_kwargs={"create_graph": True}
        )
        wanted = [x, net.first.weight, net.head.weight]
        return torch.autograd.grad(found.square().sum(), wanted)

    assert_same(gradients(LayerGradCam), gradients(Theirs), 1e-5)


@pytest.mark.parametrize("of_input", [True, False])
def test_a_graph_may_begin_at_the_first_layer_that_is_trained(net, of_input):
    net.requires_grad_(False)
    net.head.requires_grad_()
    x = sample("conv", 2)
    found = LayerGradCam(net, net.third).attribute(
        x, 1, None, of_input, grad_kwargs={"create_graph": True}
    )
    expected = Theirs(net, net.third).attribute(x, 1, None, of_input)
    assert_same(found.detach(), expected)
    found.sum().backward()
    assert net.head.weight.grad.abs().max() > 0
    assert (x.requires_grad, net.first.weight.grad) == (False, None)


def test_attributions_are_detached_without_a_graph(net):
    x = sample("conv", 1)
    assert Theirs(net, net.third).attribute(x, 1).requires_grad
    assert not LayerGradCam(net, net.third).attribute(x, 1).requires_grad
    assert not LayerGradCam(net, net.third).attribute(x, 1, None, True).requires_grad


@pytest.mark.parametrize("of_input", [True, False])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_caller_s_mode_makes_no_difference(net, mode, of_input):
    x = sample("conv", 2)
    expected = Theirs(net, net.third).attribute(x, 1, None, of_input)
    with mode():
        found = LayerGradCam(net, net.third).attribute(x, 1, None, of_input)
    assert_same(found, expected)


@pytest.mark.parametrize("of_input", [True, False])
def test_frozen_models_are_explained_as_others(net, of_input):
    x, frozen = sample("conv", 2), copy.deepcopy(net).requires_grad_(False)
    for layer in CONV[1:]:
        expected = Theirs(net, net.get_submodule(layer)).attribute(x, 1, None, of_input)
        found = LayerGradCam(frozen, frozen.get_submodule(layer)).attribute(x, 1, None, of_input)
        assert_same(found, expected)


def test_a_frozen_layer_s_input_counts_where_it_was_used_before(net):
    """Theirs begins a graph at the layer, and misses what the side branch did before."""
    x, frozen = sample("conv", 2), copy.deepcopy(net).requires_grad_(False)
    expected = Theirs(net, net.second).attribute(x, 1, None, True)
    missed = Theirs(frozen, frozen.second).attribute(x, 1, None, True)
    assert (missed - expected).abs().max() > 0.01 * expected.abs().max()
    assert_same(LayerGradCam(frozen, frozen.second).attribute(x, 1, None, True), expected)


@pytest.mark.parametrize("of_input", [True, False])
@pytest.mark.parametrize("layer", ["relu", "second", "last_relu", "head"])
def test_bfloat16_is_summed_in_full_precision(net, layer, of_input):
    x, half = sample("conv", 2), copy.deepcopy(net).bfloat16()
    found = LayerGradCam(half, half.get_submodule(layer)).attribute(x.bfloat16(), 1, None, of_input)
    expected = Theirs(half, half.get_submodule(layer)).attribute(x.bfloat16(), 1, None, of_input)
    assert_same(found, expected, 0.05)
    assert found.dtype == torch.bfloat16


def test_float64_stays_float64(net):
    net, x = net.double(), sample("conv", 2).double()
    assert_parity(net, net.third, x, 1, limit=1e-14)


def test_channels_last_is_the_same(net):
    x = sample("conv", 2)
    expected = Theirs(net, net.third).attribute(x, 1)
    net = net.to(memory_format=torch.channels_last)
    found = LayerGradCam(net, net.third).attribute(
        x.contiguous(memory_format=torch.channels_last), 1
    )
    assert_same(found, expected)


def test_dropout_draws_what_it_draws_for_captum(net):
    x = sample("conv", 2)
    net.drop.train()
    torch.manual_seed(3)
    expected = Theirs(net, net.second).attribute(x, 1)
    torch.manual_seed(3)
    assert_same(LayerGradCam(net, net.second).attribute(x, 1), expected)


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


def hooks_of(net):
    kinds = [name for name in vars(net) if "hooks" in name]
    return [dict(vars(module)[kind]) for module in net.modules() for kind in kinds]


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("of_input", [True, False])
@pytest.mark.parametrize("layer", ["first", "second", "head"])
def test_a_model_in_training_and_its_input_are_left_as_they_were(net, layer, of_input, failing):
    net.train()
    net.second.requires_grad_(False)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    x = sample("conv", 2)
    before = copy.deepcopy(net.state_dict()), hooks_of(net), torch.get_rng_state(), x.clone()
    flags = [one.requires_grad for one in net.parameters()]
    buffers = [id(one) for one in net.buffers()]
    if failing:
        with pytest.raises(ValueError, match="target"):
            LayerGradCam(net, net.get_submodule(layer)).attribute(x, 7, None, of_input)
    else:
        LayerGradCam(net, net.get_submodule(layer)).attribute(x, 1, None, of_input)
    assert_equal(net.state_dict(), before[0])
    assert hooks_of(net) == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.equal(x, before[3])
    assert [one.requires_grad for one in net.parameters()] == flags
    assert [id(one) for one in net.buffers()] == buffers
    assert all(torch.equal(one.grad, torch.ones_like(one)) for one in net.parameters())
    assert net.training
    assert not x.requires_grad
    assert x.grad is None


def test_captum_leaves_statistics_random_state_and_a_flag_behind(net):
    """What the table of differences says of captum."""
    net.train()
    x, statistics, state = sample("conv", 2), net.norm.running_mean.clone(), torch.get_rng_state()
    Theirs(net, net).attribute(x, 1, None, True)
    assert x.requires_grad
    assert not torch.equal(net.norm.running_mean, statistics)
    assert not torch.equal(torch.get_rng_state(), state)


def test_others_may_use_the_layer_meanwhile(net):
    """A run in another thread is no run of forward_func."""
    x = sample("conv", 2)
    expected = LayerGradCam(net, net.third).attribute(x, 1)

    def run(x):
        scores = net(x)
        other = threading.Thread(target=lambda: net.third(torch.zeros(1, 4, 8, 8)))
        other.start()
        other.join()
        return scores

    assert_same(LayerGradCam(run, net.third).attribute(x, 1), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": None}, r"target: expected it to leave one number .* \(2, 5\), got None"),
        ({"target": 5}, r"target: index 5 is out of bounds .* \(2, 5\)"),
        ({"target": (1, 2)}, r"target: too many indices"),
        ({"target": [1, 2, 3]}, r"target: expected one per sample \(2\), got 3"),
        ({"target": [1, 5]}, r"target: expected indices in 0..4, got \[1, 5\]"),
        ({"target": [(1,), (7,)]}, r"target: index 7 is out of bounds"),
        ({"target": torch.tensor([1, 2, 3])}, r"target: expected one per sample \(2\), got 3"),
        ({"target": torch.tensor([[1], [2]])}, r"target: expected None, .* got a Tensor \(2, 1\)"),
        ({"target": torch.tensor([1.0, 2.0])}, r"target: expected None, .* got a Tensor"),
        ({"target": "cat"}, r"target: expected None, .* got a str 'cat'"),
        ({"target": [1, "cat"]}, r"target: expected None, .* got a list"),
        ({"inputs": [torch.zeros(2, 3, 8, 8)]}, r"inputs: expected a tensor or .*, got a list"),
        ({"inputs": (torch.zeros(2, 3, 8, 8), 1.0)}, r"inputs: .* got \(Tensor, float\)"),
        ({"inputs": torch.zeros(0, 3, 8, 8)}, r"inputs: the batch is empty"),
        ({"grad_kwargs": {"is_grads_batched": True}}, r"grad_kwargs: .* got is_grads_batched"),
    ],
)
def test_errors_name_the_argument(net, change, message):
    arguments = {"inputs": sample("conv", 2), "target": 1, **change}
    with pytest.raises(ValueError, match=message):
        LayerGradCam(net, net.third).attribute(**arguments)


@pytest.mark.parametrize(
    ("forward_func", "layer", "message"),
    [
        (Convolutions(), nn.ReLU(), "layer: expected one that forward_func runs; it was not"),
        (Convolutions(), "third", "layer: expected a torch.nn.Module, got str"),
        ("model", nn.ReLU(), "forward_func: expected a callable, got str"),
        (lambda x: (x,), nn.ReLU(), "layer: expected one that forward_func runs"),
    ],
)
def test_what_cannot_be_run_is_refused(forward_func, layer, message):
    with pytest.raises(ValueError, match=message):
        LayerGradCam(forward_func, layer).attribute(sample("conv", 2), 1)


def test_outputs_and_layers_of_other_kinds_are_refused(net):
    x = sample("conv", 2)
    with pytest.raises(ValueError, match="forward_func: expected it to return a tensor, got a tup"):
        LayerGradCam(lambda x: (net(x),), net.third).attribute(x, 1)
    recurrent = nn.LSTM(3, 5, batch_first=True)
    with pytest.raises(ValueError, match=r"layer: expected its output to be floating .* tuple\)"):
        LayerGradCam(lambda x: recurrent(x)[0].mean(1), recurrent).attribute(x[:, 0, :, :3], 1)
    embedding = nn.Embedding(9, 5)
    with pytest.raises(ValueError, match=r"layer: expected its positional .* \(torch.int64\)"):
        LayerGradCam(lambda x: embedding(x).mean(1), embedding).attribute(
            torch.ones(2, 4, dtype=torch.long), 1, attribute_to_layer_input=True
        )
    with pytest.raises(ValueError, match="layer: forward_func runs it without gradients"):
        LayerGradCam(torch.no_grad()(net.forward), net.third).attribute(x, 1)


def test_embeddings_are_explained_whether_they_are_trained_or_not():
    embedding, head = nn.Embedding(9, 6), nn.Linear(6, 5)
    words = torch.randint(9, (3, 7))
    layer = nn.Tanh()

    def run(words):
        return head(layer(embedding(words)).mean(1))

    expected = assert_parity(run, embedding, words, 1)
    of_input = assert_parity(run, layer, words, 1, attribute_to_layer_input=True)
    embedding.requires_grad_(False)
    assert_same(assert_parity(run, embedding, words, 1), expected)
    found = assert_parity(run, layer, words, 1, attribute_to_layer_input=True)
    assert_same(found, of_input)
    options = {"create_graph": True}
    found = LayerGradCam(run, embedding).attribute(words, 1, grad_kwargs=options)
    assert_same(found.detach(), expected)
    assert found.requires_grad


@pytest.mark.parametrize(
    ("shape", "size", "mode"),
    [
        ((2, 1, 5), 17, "nearest"),
        ((2, 1, 5), (17,), "linear"),
        ((2, 3, 5, 4), (17, 9), "nearest"),
        ((2, 3, 5, 4), 12, "bilinear"),
        ((2, 3, 5, 4), (17, 9), "bicubic"),
        ((2, 3, 5, 4), (17, 9), "area"),
        ((2, 1, 3, 5, 4), (5, 17, 9), "trilinear"),
    ],
)
def test_interpolation_is_captum_s_bit_for_bit(shape, size, mode):
    attribution = torch.randn(shape)
    expected = TheirAttribution.interpolate(attribution, size, mode)
    assert torch.equal(LayerAttribution.interpolate(attribution, size, mode), expected)
    by_name = LayerGradCam.interpolate(attribution, size, interpolate_mode=mode)
    assert torch.equal(by_name, expected)


def test_interpolation_takes_the_nearest_by_default():
    attribution = torch.randn(1, 1, 4, 4)
    expected = TheirAttribution.interpolate(attribution, (9, 9))
    assert torch.equal(LayerAttribution.interpolate(attribution, (9, 9)), expected)


def test_names_are_found_where_captum_has_them():
    assert LayerGradCam is FromAttr is FromCore
    assert LayerAttribution is FromUtils
    assert issubclass(LayerGradCam, LayerAttribution)


@pytest.mark.parametrize("method", ["__init__", "attribute", "interpolate"])
def test_arguments_are_captum_s(method):
    def parameters(cls):
        found = inspect.signature(getattr(cls, method)).parameters.values()
        return [(one.name, one.default, one.kind) for one in found]

    assert parameters(LayerGradCam) == parameters(Theirs)


def test_what_is_asked_of_an_attribution_is_answered_as_by_captum(net):
    ours, theirs = LayerGradCam(net, net.third, [0]), Theirs(net, net.third, [0])
    assert ours.get_name() == theirs.get_name()
    assert ours.has_convergence_delta() is theirs.has_convergence_delta()
    assert ours.multiplies_by_inputs is theirs.multiplies_by_inputs
    assert (ours.forward_func, ours.layer, ours.device_ids) == (net, net.third, [0])
    assert type(pickle.loads(pickle.dumps(ours))) is LayerGradCam


@pytest.mark.parametrize("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_tunnels_go_through_it(net, nt_type):
    x = sample("conv", 2)

    def smoothed(method):
        torch.manual_seed(4)
        tunnel = captum.attr.NoiseTunnel(method(net, net.third))
        return tunnel.attribute(x, nt_type, nt_samples=3, stdevs=0.2, target=[1, 2])

    # A variance is the difference of two means that nearly are the same.
    assert_same(smoothed(LayerGradCam), smoothed(Theirs), 1e-4 if nt_type == "vargrad" else 1e-6)
