"""Frozen, half-precision, autocast, compiled and wrapped models answer as the plain one does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import camfuse
from oracle import autograd_pairs, relative_error
from small_models import Residual


class Mixed(nn.Module):
    """Convolutions, channels last, tokens and attention in one small network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(x))).flatten(2).mT
        x = torch.cat([self.token.to(x.dtype).expand(len(x), -1, -1), x], 1)
        return self.head(self.block(x)[:, 0])


MODELS = [Residual, Mixed]


def make(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def image(size: tuple[int, int] = (16, 24)) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


def stack_of(model: nn.Module, x: Tensor) -> camfuse.CamStack:
    return camfuse.layer_cams(model, x, method="layercam", layers="all")


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.requires_grad_(False),
        lambda m: torch.compile(m, backend="eager"),
        lambda m: nn.DataParallel(m),
        lambda m: nn.DataParallel(torch.compile(m, backend="eager")),
    ],
    ids=["frozen", "compiled", "DataParallel", "compiled in DataParallel"],
)
def test_the_same_bits(kind: type[nn.Module], change: Callable[[nn.Module], nn.Module]) -> None:
    x, expected = image(), stack_of(make(kind), image())
    changed = change(make(kind))
    for _ in range(2):
        stack = stack_of(changed, x)
        assert stack.names == expected.names
        assert torch.equal(stack.flat, expected.flat)


def test_a_module_compiled_in_place_is_captured() -> None:
    model, expected = make(Mixed), stack_of(make(Mixed), image())
    model.block.compile(backend="eager")
    model(image())
    assert torch.equal(stack_of(model, image()).flat, expected.flat)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    if not dist.is_available():
        pytest.skip("torch was built without distributed")
    address = f"file://{tmp_path / 'meeting'}"
    dist.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.usefixtures("process_group")
def test_distributed_models(kind: type[nn.Module]) -> None:
    expected, model = stack_of(make(kind), image()), make(kind)
    wrapped = DistributedDataParallel(model).eval()
    assert torch.equal(stack_of(wrapped, image()).flat, expected.flat)
    # It trains on as before.
    wrapped(image()).sum().backward()
    assert all(one.grad is not None for one in model.parameters() if one.requires_grad)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_agrees_with_autograd_in_it(
    kind: type[nn.Module], dtype: torch.dtype
) -> None:
    model, x = make(kind).to(dtype), image().to(dtype)
    stack = camfuse.layer_cams(model, x, method="hirescam", layers="conv")
    for name, (A, G) in autograd_pairs(model, x).items():
        if name in stack.names:
            assert stack[name].dtype == torch.float32
            expected = (A.float() * G.float()).sum(1)
            terms = (A.float() * G.float()).abs().sum(1).max()
            assert float((stack[name] - expected).abs().max()) <= 5e-2 * float(terms)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_around_the_call_is_followed(kind: type[nn.Module], dtype: torch.dtype) -> None:
    """The model computes in half precision, as it would for the caller; maps stay f32."""
    seen: list[torch.dtype] = []
    model, expected = make(kind), stack_of(make(kind), image())
    conv = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    conv.register_forward_hook(lambda m, a, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype):
        stack = stack_of(model, image())
    assert set(seen) == {dtype}
    assert stack.names == expected.names
    for layer in stack.layers:
        assert stack[layer.name].dtype == torch.float32
    first = stack.names[0]
    assert relative_error(stack[first], expected[first]) <= 0.2


@pytest.mark.parametrize("kind", MODELS)
def test_channels_last(kind: type[nn.Module]) -> None:
    model, x = make(kind).double(), image().double()
    expected = stack_of(model, x)
    stack = stack_of(
        model.to(memory_format=torch.channels_last),
        x.contiguous(memory_format=torch.channels_last),
    )
    assert [layer.shape for layer in stack.layers] == [layer.shape for layer in expected.layers]
    for name in expected.names:
        torch.testing.assert_close(stack[name], expected[name], rtol=1e-9, atol=1e-12)
