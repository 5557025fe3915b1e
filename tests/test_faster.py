"""Folded batch norms and channels last: the same outputs, only where that is certain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from camfuse.faster import faster
from camfuse.replay import Arguments
from small_models import Head


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def image(batch: int = 1, size: int = 16) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def copies_of(x: Tensor) -> Arguments:
    return lambda n: ((x[:1].expand(n, *x.shape[1:]),), {})


class Ops(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def norms_computed(work: Callable[[], object]) -> int:
    with Ops() as ops:
        work()
    return sum(count for name, count in ops.counts.items() if "batch_norm" in name)


def trained(model: nn.Module) -> nn.Module:
    """With statistics that matter."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, -1, 2)
            nn.init.uniform_(module.bias, -1, 1)
    return model.eval()


class Plain(Head):
    def __init__(self) -> None:
        super().__init__(4)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


class ReadTwice(Plain):
    """Somebody else reads what the convolution returned."""

    def body(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.norm(x) + x


class CalledTwice(Plain):
    """The convolution's other call has no batch norm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Conv2d(4, 3, 1)

    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.widen(self.conv(x))))


class Viewing(Plain):
    """Counts on contiguous activations."""

    def body(self, x: Tensor) -> Tensor:
        y = super().body(x)
        return y.view(-1).view(y.shape)


class OverwrittenBetween(Plain):
    """The convolution's output is changed before the batch norm sees it."""

    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).mul_(2))


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "mobilenet_v3_small", "efficientnet_b0", "vit_b_32"]
)
def test_outputs_are_the_same_and_no_batch_norm_behind_a_convolution_is_left(name: str) -> None:
    options = {"image_size": 64} if name == "vit_b_32" else {}
    model = trained(getattr(torchvision.models, name)(weights=None, **options))
    x = image(2, 64)
    plain = model(x)
    with faster(model, copies_of(x)) as refusal:
        assert refusal is None
        found = model(x)
        left = norms_computed(lambda: model(x))
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))
    assert found.is_contiguous()
    # DenseNet also normalises before convolutions: once per dense layer and transition, and last.
    assert left == (58 + 3 + 1 if name == "densenet121" else 0)


def test_it_is_faster_only_inside_and_parameters_stay() -> None:
    model = trained(Plain())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    addresses = [one.data_ptr() for one in model.parameters()]
    with faster(model, copies_of(image())):
        assert norms_computed(lambda: model(image())) == 0
        assert [one.data_ptr() for one in model.parameters()] == addresses
    assert norms_computed(lambda: model(image())) == 1
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())
    assert all("forward" not in vars(module) for module in model.modules())


@pytest.mark.parametrize(
    ("network", "reason"), [(ReadTwice, "another output"), (Viewing, "raise RuntimeError")]
)
def test_models_that_it_would_break_run_plainly(network: type[Plain], reason: str) -> None:
    model = trained(network())
    plain = model(image())
    with faster(model, copies_of(image())) as refusal:
        assert reason in str(refusal)
        assert torch.equal(model(image()), plain)


@pytest.mark.parametrize("network", [CalledTwice, OverwrittenBetween])
def test_only_what_always_goes_together_is_folded(network: type[Plain]) -> None:
    model = trained(network())
    with faster(model, copies_of(image())) as refusal:
        assert refusal is None
        assert norms_computed(lambda: model(image())) == 1


def test_a_convolution_that_somebody_listens_to_is_not_folded() -> None:
    model = trained(Plain())
    expected = model.conv(image())
    seen: list[Tensor] = []
    model.conv.register_forward_hook(lambda m, a, output: seen.append(output))
    with faster(model, copies_of(image())):
        model(image())
    torch.testing.assert_close(seen[-1], expected)


def test_the_layer_that_is_explained_returns_what_it_always_does() -> None:
    model = trained(Plain())
    seen: list[Tensor] = []
    with faster(model, copies_of(image()), unlike=model.conv):
        handle = model.conv.register_forward_hook(lambda m, a, output: seen.append(output))
        model(image())
        handle.remove()
    torch.testing.assert_close(seen[0], model.conv(image()))


def test_half_precision_is_not_folded() -> None:
    model = trained(Plain()).bfloat16()
    x = image().bfloat16()
    with faster(model, copies_of(x)) as refusal:
        assert refusal is None
        assert norms_computed(lambda: model(x)) == 1
