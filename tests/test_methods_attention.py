"""legrad: gradients of each block's score in its attention probabilities."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torchcam.methods import LeGrad
from torchvision.models import VisionTransformer, resnet18

import camfuse
from oracle import relative_error
from test_capture import assert_same, snapshot


def torchvision_model() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(64, 16, 3, 4, 24, 48, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # begins at 0
    return model.double().eval()


def timm_model(*, fused: bool, **options) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=64,
        embed_dim=24,
        depth=3,
        num_heads=4,
        num_classes=5,
        **options,
    )
    nn.init.normal_(model.head.weight)
    for block in model.blocks:
        block.attn.fused_attn = fused
    return model.double().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(
        2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.parametrize("block", range(3))
def test_maps_are_those_of_torchcam(x: Tensor, block: int) -> None:
    model = torchvision_model()
    name = f"encoder.layers.encoder_layer_{block}"
    got = camfuse.layer_cams(model, x, method="legrad", layers=name, target=[1, 3])[name]
    with LeGrad(model, name) as peer:
        scores = model(x)
        (maps,) = peer([1, 3], scores, normalized=False)
    assert maps.any()
    assert relative_error(got, maps) <= 1e-9


def by_autograd(model: nn.Module, x: Tensor, classes: list[int], block: int) -> Tensor:
    """Of a timm model with explicit attention, whose dropout is handed the probabilities."""
    found: dict[str, Tensor] = {}
    one = model.blocks[block]
    handles = [
        one.attn.attn_drop.register_forward_hook(lambda *args: found.update(p=args[2])),
        one.register_forward_hook(lambda *args: found.update(tokens=args[2])),
    ]
    model(x)
    for handle in handles:
        handle.remove()
    logits = model.head(model.fc_norm(model.norm(found["tokens"].mean(1))))
    score = logits.gather(1, torch.tensor(classes)[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, found["p"])
    prefix = model.num_prefix_tokens
    return gradient.relu().mean((1, 2))[:, prefix:].view(len(x), 4, 4)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("options", [{}, {"global_pool": "avg"}, {"reg_tokens": 4}])
def test_every_block_of_timm_whatever_its_attention_is_made_of(
    x: Tensor, fused: bool, options: dict
) -> None:
    stack = camfuse.layer_cams(
        timm_model(fused=fused, **options), x, method="legrad", layers="blocks.?", target=[1, 3]
    )
    assert stack.names == ("blocks.0", "blocks.1", "blocks.2")
    for block in range(3):
        expected = by_autograd(timm_model(fused=False, **options), x, [1, 3], block)
        assert relative_error(stack[f"blocks.{block}"], expected) <= 1e-9


def test_an_attention_module_is_scored_by_its_own_tokens(x: Tensor) -> None:
    """And a block that contains it as if alone."""
    model = timm_model(fused=True)
    names = ["blocks.1", "blocks.1.attn"]
    both = camfuse.layer_cams(model, x, method="legrad", layers=names, target=1)
    assert set(both.names) == set(names)
    for name in names:
        alone = camfuse.layer_cams(model, x, method="legrad", layers=name, target=1)
        assert torch.equal(both[name], alone[name])
    assert not torch.equal(both["blocks.1"], both["blocks.1.attn"])


def test_other_layers_say_why_they_have_none(x: Tensor) -> None:
    stack = camfuse.layer_cams(torchvision_model(), x, method="legrad", layers="all")
    # The sequence of all blocks returns the tensor of the last one, whose map it shares.
    blocks = [f"encoder.layers.encoder_layer_{i}" for i in range(3)]
    assert stack.names == (*blocks, "encoder.layers")
    reasons = {one.name: one.reason for one in stack.skipped}
    assert reasons["encoder.ln"] == "legrad: expected one self-attention inside it, found none"
    assert reasons["encoder.layers.encoder_layer_0.ln_1"] == reasons["encoder.ln"]


def test_what_contains_several_attentions_says_so(x: Tensor) -> None:
    stack = camfuse.layer_cams(
        timm_model(fused=True), x, method="legrad", layers=["blocks", "blocks.0"]
    )
    reasons = {one.name: one.reason for one in stack.skipped}
    assert reasons["blocks"] == "legrad: expected one self-attention inside it, found 3"


def test_a_model_whose_head_is_not_known_is_refused(x: Tensor) -> None:
    with pytest.raises(ValueError, match="only vision transformers of torchvision and timm"):
        camfuse.layer_cams(resnet18().double().eval(), x, method="legrad")


def test_weights_that_somebody_asks_for_change_nothing(x: Tensor) -> None:
    """Torch computes attention in another way then."""
    plain, asking = torchvision_model(), torchvision_model()
    for block in asking.encoder.layers:
        forward = block.self_attention.forward

        def wordy(*args, forward=forward, need_weights=False, **kwargs):
            out, weights = forward(*args, need_weights=True, **kwargs)
            assert weights.shape == (2, 17, 17)
            return out, weights

        block.self_attention.forward = wordy
    options = {"method": "legrad", "layers": "encoder.layers.*_?", "target": 2}
    expected = camfuse.layer_cams(plain, x, **options)
    assert relative_error(camfuse.layer_cams(asking, x, **options).flat, expected.flat) <= 1e-9


def test_samples_and_targets_are_explained_as_if_alone(x: Tensor) -> None:
    model, target = torchvision_model(), torch.tensor([[0, 1], [2, 3]])
    options = {"method": "legrad", "layers": "type:EncoderBlock"}
    together = camfuse.layer_cams(model, x, target=target, **options)
    for t in range(2):
        for b in range(2):
            alone = camfuse.layer_cams(model, x[b : b + 1], target=int(target[t, b]), **options)
            for name in alone.names:
                got = together.select(target=t)[name][b]
                assert relative_error(got, alone[name][0]) <= 1e-9


@pytest.mark.parametrize("frozen", [False, True])
def test_the_model_is_left_as_it_was_also_after_an_error(x: Tensor, frozen: bool) -> None:
    model = torchvision_model().requires_grad_(not frozen)
    before = snapshot(model)
    options = {"method": "legrad", "layers": "type:EncoderBlock"}
    camfuse.layer_cams(model, x, **options)
    assert_same(before, snapshot(model))
    calls: list[int] = []

    def fail(*args: object) -> None:
        calls.append(1)
        if len(calls) == 3:  # of the pass that differentiates
            raise RuntimeError("stopped")

    handle = model.encoder.layers[2].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="stopped"):
        camfuse.layer_cams(model, x, **options)
    handle.remove()
    assert_same(before, snapshot(model))


def test_no_block_knows_of_the_graph_of_the_one_before(x: Tensor) -> None:
    """So that it is gone: no more than one block's is held."""
    model = torchvision_model()
    attached: list[tuple[bool, bool]] = []

    def note(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        attached.append((args[0].requires_grad, output.requires_grad))

    for block in model.encoder.layers:
        block.register_forward_hook(note)
    camfuse.layer_cams(model, x, method="legrad", layers="type:EncoderBlock")
    assert attached[-3:] == [(False, True)] * 3


def test_half_precision_is_close(x: Tensor) -> None:
    options = {"method": "legrad", "layers": "type:EncoderBlock", "target": 1}
    exact = camfuse.layer_cams(torchvision_model(), x, **options)
    got = camfuse.layer_cams(torchvision_model().bfloat16(), x.bfloat16(), **options)
    assert relative_error(got.flat, exact.flat) <= 0.1
