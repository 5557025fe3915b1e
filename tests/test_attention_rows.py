"""Attention with frozen weights multiplies as few times as with trainable ones."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import camfuse
from camfuse.preserve import plain_attention


class Products(TorchDispatchMode):
    """Counts batched matrix products."""

    def __init__(self):
        super().__init__()
        self.batched = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.batched += func is torch.ops.aten.bmm.default
        return func(*args, **(kwargs or {}))


def attention(**options):
    torch.manual_seed(0)
    return nn.MultiheadAttention(8, 2, batch_first=True, **options).eval().requires_grad_(False)


def watched(model, *inputs):
    """How many batched products a watched pass takes, and its output."""
    with Products() as products, plain_attention(tuple(model.modules())):
        found = model(*inputs, need_weights=False)[0]
    return products.batched, found


def tokens(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, count, 8, generator=generator, requires_grad=True)


def test_self_attention_is_projected_at_once():
    model, x = attention(), tokens(5, 0)
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with Products() as plain:
            expected = model(x, x, x, need_weights=False)[0]
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
    batched, found = watched(model, x, x, x)
    assert batched == 0 < plain.batched  # the latter is why attention_rows is there
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("options", [{}, {"kdim": 4, "vdim": 6}])
def test_inputs_that_differ_stay_apart(options):
    model = attention(**options)
    query = tokens(5, 0)
    key = tokens(7, 1)[..., : options.get("kdim", 8)]
    value = tokens(7, 2)[..., : options.get("vdim", 8)]
    expected = model(query, key, value, need_weights=False)[0]
    _, found = watched(model, query, key, value)
    torch.testing.assert_close(found, expected)


def test_maps_of_a_batch_are_those_of_its_samples():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 4, 4)
            self.attention = attention()
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            rows = self.patches(x).flatten(2).mT
            return self.head(self.attention(rows, rows, rows, need_weights=False)[0].mean(1))

    model, x = Model().eval(), torch.randn(3, 3, 16, 16)
    whole = camfuse.layer_cams(model, x, layers=["patches"], target=1)["patches"]
    alone = [camfuse.layer_cams(model, one[None], layers=["patches"], target=1) for one in x]
    torch.testing.assert_close(whole, torch.cat([one["patches"] for one in alone]))
