"""full_grad() and the method fullgrad: what biases contribute, alone and all together."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from pytorch_grad_cam import FullGrad
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18
from torchvision.ops import FrozenBatchNorm2d

import camfuse
from camfuse.capture import capture
from camfuse.methods.fullgrad import bias_of
from oracle import autograd_pairs, relative_error
from small_models import Head, Residual

LOUD = 1e6  # pytorch-grad-cam adds 1e-7 to every range, which is to be small beside it


def settled(model: nn.Module) -> nn.Module:
    """With biases and statistics as after training."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        for name in ("weight", "bias", "running_mean", "running_var"):
            values = getattr(module, name, None)
            if values is None or (name == "weight" and values.ndim > 1):
                continue
            fresh = torch.rand(values.shape, generator=generator, dtype=torch.float64)
            values.data.copy_(fresh + 0.5 if name in ("weight", "running_var") else fresh - 0.5)
    return model.double().eval()


def make(kind) -> nn.Module:
    torch.manual_seed(0)
    return settled(kind())


@pytest.fixture
def x() -> Tensor:
    return torch.randn(
        2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


class Growing(Head):
    """A layer is larger than the input."""

    def __init__(self) -> None:
        super().__init__(4)
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 4, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        large = F.interpolate(self.first(x).relu(), scale_factor=1.6)
        return self.last(large).relu().square()


class Plain(nn.Sequential):
    """As VGG: pooling, and several linear layers behind."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(8 * 14 * 14, 20), nn.ReLU(inplace=True), nn.Linear(20, 5)),
        )


def by_pytorch_grad_cam(model: nn.Module, x: Tensor, classes: list[int]) -> Tensor:
    peer = FullGrad(model, [])
    raw = []
    make_raw = peer.compute_cam_per_layer
    peer.compute_cam_per_layer = lambda *args: raw.append(make_raw(*args)) or raw[-1]
    peer(x, [lambda out, c=c: out[c] * LOUD for c in classes])
    peer.activations_and_grads.release()
    return torch.from_numpy(raw[0])[:, 0]


def loud(classes: list[int]):
    return lambda out: out.gather(1, torch.tensor(classes)[:, None])[:, 0] * LOUD


@pytest.mark.parametrize("kind", [Residual, Growing, lambda: resnet18(num_classes=5), Plain])
def test_the_sum_is_that_of_pytorch_grad_cam(x: Tensor, kind) -> None:
    model = make(kind)
    got = camfuse.full_grad(model, x, target=loud([1, 4]))
    assert got.shape == (2, 64, 64)
    assert relative_error(got, by_pytorch_grad_cam(model, x, [1, 4])) <= 1e-5


@pytest.mark.parametrize("kind", [Residual, lambda: resnet18(num_classes=5), Plain])
def test_input_and_biases_account_for_the_whole_score(x: Tensor, kind) -> None:
    """Of a network of ReLUs: what shows that each bias, also the implicit ones, is right."""
    model = make(kind)
    wrapped = nn.Sequential(nn.Identity(), model).eval()
    biased = [
        one for one in model.modules() if isinstance(one, nn.Conv2d | nn.Linear | nn.BatchNorm2d)
    ]
    spatial = [one for one in biased if not isinstance(one, nn.Linear)]
    sums = []

    def visit(layer, target: int, A: Tensor, G: Tensor) -> None:
        if isinstance(layer.module, nn.Identity):
            sums.append((A * G).sum((1, 2, 3)))
        elif not isinstance(layer.module, nn.Conv2d) or layer.module.bias is not None:
            sums.append((bias_of(layer.module)[:, None, None] * G).sum((1, 2, 3)))

    found = capture(wrapped, x, visit, layers=[wrapped[0], *spatial], target=2)
    # Linear layers have no image to show, but gradients likewise.
    for name, (_, G) in autograd_pairs(model, x, lambda out: out[:, 2]).items():
        module = dict(model.named_modules()).get(name)  # not a second call
        if isinstance(module, nn.Linear):
            sums.append((bias_of(module) * G).sum(1))
    (score,) = found.scores.values
    torch.testing.assert_close(torch.stack(sums).sum(0), score, rtol=1e-9, atol=0)
    assert torch.stack(sums[:-1]).abs().max() > 0.1 * score.abs().max()


def test_a_layers_map_is_its_rescaled_part(x: Tensor) -> None:
    model = make(Residual)
    stack = camfuse.layer_cams(model, x, method="fullgrad", target=1)
    assert stack.names == ("stem", "norm", "conv")
    norm = model.norm
    biases = {
        "stem": model.stem.bias,
        "norm": norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt(),
        "conv": model.conv.bias,
    }
    for name, bias in biases.items():
        _, G = autograd_pairs(model, x, lambda out: out[:, 1])[name]
        terms = (bias.detach()[:, None, None] * G).abs().flatten(2)
        low, high = terms.amin(2, keepdim=True), terms.amax(2, keepdim=True)
        expected = ((terms - low) / (high - low)).sum(1).view(2, 64, 64)
        assert relative_error(stack[name], expected) <= 1e-9


def test_layers_without_a_bias_say_why(x: Tensor) -> None:
    model = settled(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False),
            nn.ReLU(),
            nn.InstanceNorm2d(4),
            nn.BatchNorm2d(4, affine=False),
            nn.BatchNorm2d(4, track_running_stats=False),
            FrozenBatchNorm2d(4),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(31 * 31 * 4, 5),
        )
    )
    stack = camfuse.layer_cams(model, x, method="fullgrad")
    assert stack.names == ("3", "5")
    reasons = {one.name: one.reason for one in stack.skipped}
    assert reasons["0"] == "fullgrad: it has no bias"
    only = "fullgrad: only convolutions, linear layers and batch normalisations have a bias"
    assert reasons["1"] == reasons["2"] == reasons["6"] == only
    assert reasons["4"] == "fullgrad: it normalises by statistics of the batch"


def test_a_normalisation_that_also_activates_is_not_taken_for_a_plain_one(x: Tensor) -> None:
    class Activated(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu()

    model = make(Residual)
    model.norm = settled(Activated(4))
    stack = camfuse.layer_cams(model, x, method="fullgrad")
    assert stack.names == ("stem", "conv")
    reasons = {one.name: one.reason for one in stack.skipped}
    assert reasons["norm"] == "fullgrad: its class Activated does more than to normalise"


def test_a_channel_that_is_constant_but_for_rounding_adds_nothing(x: Tensor) -> None:
    """Behind a mean, gradients are equal at all positions; their range is not to be blown up."""

    class Mean(Head):
        def __init__(self) -> None:
            super().__init__(4)
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def body(self, x: Tensor) -> Tensor:
            noise = 1 + torch.finfo(x.dtype).eps * torch.arange(64.0, dtype=x.dtype).remainder(3)
            return self.conv(x) * noise

    stack = camfuse.layer_cams(make(Mean), x, method="fullgrad", layers="conv")
    assert not stack["conv"].any()


def test_several_targets_and_samples_are_explained_as_if_alone(x: Tensor) -> None:
    model = make(Residual)
    classes = torch.tensor([[0, 1], [2, 3]])
    together = camfuse.full_grad(model, x, target=classes)
    assert together.shape == (2, 2, 64, 64)
    for t in range(2):
        for b in range(2):
            alone = camfuse.full_grad(model, x[b : b + 1], target=int(classes[t, b]))
            assert relative_error(together[t, b], alone[0]) <= 1e-9


def test_other_inputs_pass_by(x: Tensor) -> None:
    class Named(Residual):
        def forward(self, *, scale: Tensor, picture: Tensor) -> Tensor:
            return super().forward(picture) * scale

    model = make(Named)
    got = camfuse.full_grad(
        model, {"scale": torch.tensor(2.0, dtype=torch.float64), "picture": x}, target=1
    )
    assert relative_error(got, camfuse.full_grad(make(Residual), x, target=1)) <= 1e-9


def test_the_model_is_left_as_it_was_also_after_an_error(x: Tensor) -> None:
    model = make(Residual)
    x.requires_grad_()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    camfuse.full_grad(model, x)
    with pytest.raises(ValueError, match=r"target: expected a class in 0\.\.4, got 9"):
        camfuse.full_grad(model, x, target=9)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(one.requires_grad and one.grad is None for one in model.parameters())
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
    assert x.grad is None


def test_nothing_is_kept_of_a_model_that_is_gone(x: Tensor) -> None:
    model = make(Residual)
    gone = weakref.ref(model)
    camfuse.full_grad(model, x)
    del model
    gc.collect()
    assert gone() is None


def test_one_layers_gradients_at_a_time_are_held(x: Tensor) -> None:
    model = make(lambda: nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(9)), *TAIL))
    alive: list[int] = []
    gradients: list[weakref.ref[Tensor]] = []

    def note(grad: Tensor) -> None:
        gradients.append(weakref.ref(grad))
        alive.append(sum(one() is not None for one in gradients))

    for layer in model[:9]:
        layer.register_forward_hook(lambda module, args, out: out.register_hook(note) and None)
    camfuse.full_grad(model, x)
    camfuse.full_grad(model, x)
    assert len(alive) >= 9
    assert max(alive) <= 4


TAIL = (nn.ReLU(), nn.Flatten(), nn.Linear(3 * 64 * 64, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_is_close(x: Tensor, dtype: torch.dtype) -> None:
    exact = camfuse.full_grad(make(Growing), x, target=0)
    got = camfuse.full_grad(make(Growing).to(dtype), x.to(dtype), target=0)
    assert got.dtype == torch.float32
    assert relative_error(got, exact) <= {torch.float32: 1e-4, torch.bfloat16: 0.2}[dtype]


def test_inputs_without_an_image_are_refused() -> None:
    with pytest.raises(ValueError, match=r"inputs: expected a floating image .*, got torch.int64"):
        camfuse.full_grad(make(Residual), torch.zeros(1, 3, 8, 8, dtype=torch.int64))
    with pytest.raises(ValueError, match="is in training mode"):
        camfuse.full_grad(Residual(), torch.zeros(1, 3, 8, 8))
