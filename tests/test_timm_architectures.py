"""Families of image networks are recognised by themselves, with the true size of every map.

Two oracles that know nothing of layouts: sizes written down by hand, and a bright patch in the
image, which changes a map where it lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import camfuse
from camfuse.capture import capture
from camfuse.captured import Captured


@dataclass(frozen=True)
class Family:
    """A narrow or shallow network, the size of its image, and true sizes of some of its maps."""

    name: str
    size: tuple[int, int]
    maps: dict[str, tuple[int, int]]
    options: dict[str, Any]


def family(name: str, size: tuple[int, int], maps: dict[str, tuple[int, int]], **options: Any):
    return pytest.param(Family(name, size, maps, options), id=name)


SQUARE, WIDE, WIDE14 = (64, 64), (64, 96), (56, 84)
S4, S8, S16, S32 = (16, 24), (8, 12), (4, 6), (2, 3)  # strides of 4 to 32 of the wide image
TINY = {"img_size": WIDE, "depth": 2, "embed_dim": 48}
TOKENS = {"patch_embed.proj": S16, "blocks.0.norm1": S16, "blocks.1.mlp.fc1": S16}
WINDOWS = {"window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (1, 2)}
MULTI = {"embed_dim": (32, 64), "depths": (1, 1), "stem_width": 32, "img_size": WIDE}
STAGES = {"dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1)}

FAMILIES = [
    # Tokens, after none, one, two or five that are no positions.
    family("vit_tiny_patch16_224", WIDE, {**TOKENS, "blocks.1.attn.qkv": S16}, **TINY),
    family("deit_tiny_distilled_patch16_224", WIDE, TOKENS, **TINY),
    family("deit3_small_patch16_224", WIDE, TOKENS, **TINY),
    family("vit_small_patch14_reg4_dinov2", WIDE14, TOKENS, **{**TINY, "img_size": WIDE14}),
    family("eva02_tiny_patch14_224", WIDE14, TOKENS, **{**TINY, "img_size": WIDE14}),
    family("beit_base_patch16_224", WIDE, TOKENS, **{**TINY, "num_heads": 3}),
    family("cait_xxs24_224", WIDE, {**TOKENS, "blocks_token_only.0.attn.k": S16}, **TINY),
    family("xcit_nano_12_p16_224", WIDE, {"patch_embed.proj.0.0": (32, 48), **TOKENS}, **TINY),
    family("mixer_s32_224", SQUARE, {"blocks.3.mlp_channels.fc1": (2, 2)}, img_size=64),
    family("gmlp_ti16_224", SQUARE, {"blocks.3.mlp_channels.fc1": (4, 4)}, img_size=64),
    family("resmlp_12_224", SQUARE, {"blocks.3.mlp_channels.fc2": (4, 4)}, img_size=64),
    family(
        "pit_ti_224",
        SQUARE,  # patches of 16 every 8 pixels
        {
            "patch_embed.conv": (7, 7),
            "transformers.1.blocks.0.norm1": (4, 4),
            "transformers.2.blocks.0.mlp.fc1": (2, 2),
        },
        img_size=64,
    ),
    # Windows, shifted or not, and grids of them.
    family(
        "swin_tiny_patch4_window7_224",
        WIDE,
        {
            "layers.0.blocks.1.norm1": S4,
            "layers.0.blocks.1.attn.qkv": S4,
            "layers.1.downsample.reduction": S8,
            "layers.1.blocks.1.attn.proj": S8,
        },
        **{**WINDOWS, "img_size": WIDE},
    ),
    family(
        "swinv2_tiny_window8_256",
        WIDE,
        {"layers.0.blocks.1.attn.proj": S4, "layers.1.blocks.0.mlp.fc2": S8},
        **{**WINDOWS, "img_size": WIDE},
    ),
    family(
        "maxvit_pico_rw_256",
        WIDE,
        {
            "stem.conv1": (32, 48),
            "stages.0.blocks.0.attn_block.attn.qkv": S4,
            "stages.1.blocks.0.attn_grid.attn.proj": S8,
        },
        **MULTI,
    ),
    family(
        "maxxvit_rmlp_nano_rw_256",
        WIDE,
        {"stages.0.blocks.0.attn_grid.mlp.fc1": S4, "stages.1.blocks.0.attn_block.norm1": S8},
        **MULTI,
    ),
    family(
        "nest_tiny",
        SQUARE,
        {
            "levels.0.transformer_encoder.0.attn.qkv": (16, 16),
            "levels.1.transformer_encoder.1.mlp.fc1": (8, 8),
            "levels.2.transformer_encoder.0.norm1": (4, 4),
        },
        img_size=64,
    ),
    family(
        "twins_svt_small",
        WIDE,
        {"blocks.0.0.attn.proj": S4, "blocks.1.0.attn.qkv": S8, "blocks.2.1.mlp.fc1": S16},
        img_size=WIDE,
        embed_dims=(16, 16, 32, 32),
        depths=(1, 1, 2, 1),
    ),
    family(
        "hiera_tiny_224",
        WIDE,
        {
            "patch_embed.proj": S4,
            "blocks.0.mlp.fc1": S4,
            "blocks.1.attn.qkv": S4,  # pooled within
            "blocks.1.attn.proj": S8,
            "blocks.3.norm2": S16,
        },
        img_size=WIDE,
        embed_dim=24,
        stages=(1, 1, 2, 1),
    ),
    family(
        "davit_tiny",
        WIDE,
        {"stages.0.blocks.0.0.attn.qkv": S4, "stages.3.blocks.0.1.mlp.fc1": S32},
        embed_dims=(16, 32, 32, 64),
        depths=(1, 1, 1, 1),
        num_heads=(1, 2, 2, 4),
    ),
    # Convolutions and what goes with them.
    family(
        "coatnet_nano_rw_224",
        WIDE,
        {"stages.1.blocks.0.conv2_kxk": S8, "stages.2.blocks.0.attn.qkv": S16},
        img_size=WIDE,
        embed_dim=(16, 32, 64, 64),
        depths=(1, 1, 1, 1),
        stem_width=(16, 16),
    ),
    family(
        "convnext_atto",
        WIDE,
        {"stem.0": S4, "stages.1.blocks.0.mlp.fc1": S8, "stages.2.blocks.1.norm": S16},
        **STAGES,
    ),
    family(
        "convnextv2_atto",
        WIDE,
        {"stages.0.blocks.0.mlp.grn": S4, "stages.3.blocks.0.mlp.fc2": S32},
        **STAGES,
    ),
    family(
        "pvt_v2_b0",
        WIDE,
        {"stages.0.blocks.0.attn.q": S4, "stages.0.blocks.0.attn.kv": S32, "stages.1.norm": S8},
    ),
    family("poolformer_s12", WIDE, {"stages.0.blocks.0.token_mixer.pool": S4, "stages.3": S32}),
    family("efficientformer_l1", (224, 224), {"stages.0": (56, 56), "stages.3": (7, 7)}),
    family(
        "mobilevit_xxs",
        WIDE,
        {"stages.2.1.transformer.0.attn.qkv": S8, "stages.3.1.transformer.1.mlp.fc1": S16},
    ),
    family("mobilenetv4_conv_small", WIDE, {"conv_stem": (32, 48), "blocks.2.1.dw_mid.conv": S16}),
    family("regnety_002", WIDE, {"s1.b1.conv2.conv": S4, "s4.b1.conv3.conv": S32}),
    family("efficientnetv2_rw_t", WIDE, {"blocks.1.0.conv_exp": S4, "conv_head": S32}),
    family("resnest14d", WIDE, {"layer2.0.conv3": S8, "layer4.0.act3": S32}),
    family(
        "hrnet_w18_small",
        WIDE,
        {"stage2.0.branches.1.0.conv1": S8, "stage2.0.fuse_layers.0.1.2": S4},
    ),
    family("nf_resnet26", WIDE, {"stages.1.0.conv2": S8, "final_conv": S32}),
    family("repvgg_a0", WIDE, {"stages.0.0.conv_1x1.conv": S4, "stages.3.0.conv_1x1.conv": S32}),
    family("edgenext_xx_small", WIDE, {"stages.1.blocks.1.xca.qkv": S8, "stages.3": S32}),
    family(
        "levit_128s",
        (224, 224),
        {
            "stem.conv4.linear": (14, 14),
            "stages.1.downsample.attn_downsample.q.ln.linear": (7, 7),
            "stages.2.blocks.0.mlp.ln1.linear": (4, 4),
        },
    ),
    family(
        "volo_d1_224",
        SQUARE,
        {"network.0.0.attn.v": (8, 8), "network.2.0.attn.qkv": (4, 4)},
        img_size=64,
    ),
]


def build(of: Family) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(of.name, pretrained=False, **of.options).eval()
    with torch.no_grad():  # scales that begin at 0 would make whole branches do nothing
        for parameter in model.parameters():
            if parameter.ndim < 4 and float(parameter.abs().max()) < 1e-2:
                parameter.uniform_(0.5, 1)
    return model


@pytest.mark.parametrize("of", FAMILIES)
def test_every_map_has_its_true_size(of: Family) -> None:
    model = build(of)
    x = torch.randn(2, 3, *of.size)
    stacks = {kind: camfuse.layer_cams(model, x, layers=kind) for kind in ("leaf", "all")}
    for stack in stacks.values():
        sizes = {layer.name: layer.size for layer in stack.layers if layer.name in of.maps}
        assert sizes == {name: size for name, size in of.maps.items() if name in stack.names}
        assert len(stack.shown()) > 10
        reasons = {one.name: one.reason for one in stack.skipped}
        assert not [name for name, reason in reasons.items() if "layout unknown" in reason]
    assert set(of.maps) <= set(stacks["all"].names)


class AttendToSelf(TorchFunctionMode):
    """Untrained attention looks everywhere alike; here each position looks at itself above all."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention and args[0].shape[-2] == args[1].shape[-2]:
            own = 12 * torch.eye(args[0].shape[-2])
            mask = kwargs.get("attn_mask")
            kwargs["attn_mask"] = own if mask is None else mask + own
        elif (
            func in (Tensor.softmax, torch.softmax, F.softmax)
            and args[0].ndim > 2
            and args[0].shape[-1] == args[0].shape[-2]
        ):
            args = (args[0] + 12 * torch.eye(args[0].shape[-1]), *args[1:])
        return func(*args, **kwargs)


def bright_patches(size: tuple[int, int]) -> Tensor:
    """One image, and four that are brighter in the middle of one quarter ``[5, 3, H, W]``."""
    height, width = size
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1)).repeat(5, 1, 1, 1)
    for i in range(4):
        top, left = (i // 2) * height // 2, (i % 2) * width // 2
        place = (slice(top + height // 8, top + 3 * height // 8),)
        x[(i + 1, slice(None), *place, slice(left + width // 8, left + 3 * width // 8))] += 1
    return x


def verdict(A: Tensor) -> bool | None:
    """Whether a patch in each quarter changes that quarter of a map most; None if all do alike."""
    changes = (A[1:] - A[:1]).abs().sum(1, keepdim=True)  # [4, 1, h, w]
    quarters = F.adaptive_avg_pool2d(changes, 2).flatten(1)
    quarters = quarters / quarters.mean(1, keepdim=True).clamp(min=1e-30)
    excess = quarters - quarters.mean(0)  # more than patches elsewhere change it
    if bool((excess.argmax(1) == torch.arange(4)).all()):
        return True
    return None if float(quarters.amax(1).mean()) < 2 else False


@pytest.mark.parametrize("of", FAMILIES)
def test_a_bright_patch_changes_the_map_where_it_lies(of: Family) -> None:
    verdicts: dict[str, bool | None] = {}

    def visit(layer: Captured, target: int, A: Tensor, G: Tensor) -> None:
        if min(layer.shape[1:]) > 1:
            verdicts[layer.name] = verdict(A.detach().double())

    with AttendToSelf():
        capture(build(of), bright_patches(of.size), visit, layers="all", target=0)
    assert not [name for name, right in verdicts.items() if right is False]
    # Deep layers of untrained networks see the whole of a small image, and say nothing.
    assert sum(right is True for right in verdicts.values()) >= 0.25 * len(verdicts)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda A: A.flip(-1),
        lambda A: A.unflatten(-1, (2, -1)).transpose(-2, -3).flatten(-2),
        lambda A: A.roll(A.shape[-2] // 2, -2),
        lambda A: A.mT.reshape(A.shape),
    ],
)
def test_the_bright_patch_tells_a_wrong_layout(wrong: Any) -> None:
    seen = []

    def visit(layer: Captured, target: int, A: Tensor, G: Tensor) -> None:
        seen.append((verdict(A.detach()), verdict(wrong(A.detach()))))

    capture(nn.Sequential(nn.Conv2d(3, 8, 4, 4), Mean()).eval(), bright_patches(WIDE), visit)
    assert seen == [(True, False)]


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))
