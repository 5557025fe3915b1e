"""Fewer layers: the ends of stages, every n-th, and those whose maps differ most."""

from __future__ import annotations

import pytest
import torch
import torchvision

import camfuse
from camfuse.stack import CamStack, LayerInfo, pack
from camfuse.thinning import key_layers, split_thinning, thin_out


def make_stack(maps: list[torch.Tensor], hidden: tuple[int, ...] = ()) -> CamStack:
    flat, offsets = pack(maps)
    ranges = torch.stack([torch.stack([m.min(), m.max()]) for m in maps]).view(-1, 1, 1, 1, 2)
    return CamStack(
        layers=tuple(
            LayerInfo(f"layer{i}", "Conv2d", (4, *m.shape), i, shown=i not in hidden)
            for i, m in enumerate(maps)
        ),
        flat=flat,
        offsets=offsets,
        ranges=ranges,
        global_ranges=torch.stack([ranges[..., 0].amin(0), ranges[..., 1].amax(0)], -1),
        methods=("gradcam",),
        targets=torch.zeros(1, 1, dtype=torch.long),
        scores=torch.zeros(1, 1),
        probabilities=torch.zeros(1, 1),
        input_size=(16, 16),
    )


def of_sizes(*sizes: tuple[int, int], hidden: tuple[int, ...] = ()) -> CamStack:
    return make_stack([torch.rand(size) for size in sizes], hidden)


def kept(stack: CamStack, *steps: str) -> list[int]:
    return [layer.index for layer in thin_out(stack, steps).layers]


def test_a_stage_ends_where_the_size_changes() -> None:
    stack = of_sizes((8, 8), (8, 8), (4, 4), (4, 2), (4, 2), (8, 8))
    assert kept(stack, "stage-ends") == [1, 2, 4, 5]


def test_every_nth_counts_back_from_the_last() -> None:
    stack = of_sizes(*[(4, 4)] * 7)
    assert kept(stack, "every:3") == [0, 3, 6]
    assert kept(stack, "every:4") == [2, 6]
    assert kept(stack, "every:1") == list(range(7))
    assert kept(stack, "every:99") == [6]


def test_hidden_layers_neither_count_nor_stay() -> None:
    stack = of_sizes(*[(4, 4)] * 5, hidden=(3, 4))
    assert kept(stack, "every:2") == [0, 2]


def test_steps_follow_each_other_in_the_order_given() -> None:
    stack = of_sizes((8, 8), (8, 8), (4, 4), (4, 4), (2, 2), (2, 2))
    assert kept(stack, "stage-ends", "every:2") == [1, 5]
    assert kept(stack, "every:2", "stage-ends") == [1, 3, 5]


def test_thinning_is_parted_from_what_it_thins() -> None:
    assert split_thinning("stage-ends") == (["leaf"], ["stage-ends"])
    assert split_thinning(["conv", "every:2"]) == (["conv"], ["every:2"])
    assert split_thinning("conv") == (["conv"], [])
    assert split_thinning([]) == ([], [])


@pytest.mark.parametrize("step", ["every:", "every:0", "every:-2", "every:two", "every:1.5"])
def test_a_step_that_is_no_number_is_an_error(step: str) -> None:
    with pytest.raises(ValueError, match=f"layers: expected every:N with N .*, got '{step}'"):
        split_thinning(step)


def test_thinned_maps_are_those_of_the_whole_run_and_keep_its_global_range() -> None:
    model = torchvision.models.resnet18(weights=None).eval()
    image = torch.randn(1, 3, 64, 64)
    whole = camfuse.layer_cams(model, image, layers="conv")
    thinned = camfuse.layer_cams(model, image, layers=["conv", "stage-ends"])
    sizes = [layer.size for layer in thinned.layers]
    assert sizes == [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]
    for name in thinned.names:
        assert torch.equal(thinned[name], whole[name])
    assert torch.equal(thinned.global_ranges, whole.global_ranges)


def test_key_layers_are_the_different_ones() -> None:
    left, right, even = torch.zeros(8, 8), torch.zeros(8, 8), torch.eye(8)
    left[:, :2], right[:, 6:] = 1, 1
    stack = make_stack([left, left * 3, right, right * 2, right, even, even])
    assert key_layers(stack, 3) == [0, 2, 6]
    assert key_layers(stack, 1) == [6]
    assert key_layers(stack, 7) == key_layers(stack, 99) == list(range(7))


def test_key_layers_with_scores_are_good_and_different() -> None:
    left, right, even = torch.zeros(8, 8), torch.zeros(8, 8), torch.eye(8)
    left[:, :2], right[:, 6:] = 1, 1
    stack = make_stack([left, left * 3, right, right * 2, right, even, even])
    scores = torch.tensor([0.1, 0.5, 0.2, 0.4, 0.3, 0.0, torch.nan])
    assert key_layers(stack, 1, scores) == [1]
    assert key_layers(stack, 2, scores) == [1, 3]  # as far as the other two, and better
    assert key_layers(stack, 3, torch.ones(7)) == [0, 2, 5]
    with pytest.raises(ValueError, match="scores: expected one for each of 7 layers"):
        key_layers(stack, 3, torch.ones(6))


def test_key_layers_are_distinct_even_where_maps_are_equal() -> None:
    stack = make_stack([torch.ones(3, 3)] * 5)
    assert len(set(key_layers(stack, 4))) == 4
    assert key_layers(stack, 3, torch.tensor([1.0, 0, 0, 0, 0])) == [0, 1, 2]


def test_maps_of_any_size_are_compared() -> None:
    stack = of_sizes((1, 50), (64, 64), (7, 7), (1, 1))
    assert key_layers(stack, 2)[-1] == 3


def test_no_key_layer_is_an_error() -> None:
    with pytest.raises(ValueError, match="keyframes: expected at least 1, got 0"):
        key_layers(of_sizes((4, 4)), 0)
