"""ybROAD: every layer's ROAD, the best layer, and what maps score that know nothing."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor, nn

import camfuse
from camfuse.metrics.control_maps import random_maps, sobel_maps
from camfuse.metrics.road import road
from camfuse.metrics.ybroad import ybroad
from camfuse.metrics.ybroad_result import YbRoad

SIZE = 24


class Net(nn.Module):
    """Three layers and an alias; says how often it ran."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, 2)
        self.same = nn.Identity()
        self.second = nn.Conv2d(8, 8, 3, 2)
        self.third = nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.same(self.first(x)).relu()
        return self.head(self.third(self.second(x).relu()).relu().amax((2, 3))) * 5


@pytest.fixture(scope="module")
def net() -> Net:
    return Net().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    noise = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(noise, (SIZE, SIZE), mode="bilinear")


@pytest.fixture(scope="module")
def stack(net: Net, images: Tensor) -> camfuse.CamStack:
    names = ["first", "same", "second", "third"]
    target = camfuse.Each([None, 3])
    return camfuse.layer_cams(
        net, images, method=["gradcam", "layercam"], layers=names, target=target
    )


@pytest.fixture(scope="module")
def found(stack: camfuse.CamStack, net: Net, images: Tensor) -> YbRoad:
    return ybroad(stack, net, images, seeds=(0, 1))


def test_each_score_is_the_road_of_that_map(
    stack: camfuse.CamStack, net: Net, images: Tensor, found: YbRoad
) -> None:
    assert found.scores.shape == found.spread.shape == (4, 2, 2, 2)
    for i, name in enumerate(stack.names):
        for t in range(2):
            maps, target = stack.maps(name)[1, t], stack.targets[t]
            alone = road(net, images, maps, target=target, seeds=(0, 1))
            torch.testing.assert_close(found.scores[i, 1, t], alone.combined, atol=1e-6, rtol=0)
            torch.testing.assert_close(found.spread[i, 1, t], alone.spread, atol=1e-6, rtol=0)


def test_an_alias_is_scored_once_and_passes_grow_with_the_layers(
    stack: camfuse.CamStack, net: Net, images: Tensor
) -> None:
    assert stack.layers[1].alias_of == "first"
    passes: list[int] = []
    hook = net.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    counts = []
    for layers in (["first"], ["first", "same"], ["first", "second", "third"]):
        passes.clear()
        result = ybroad(stack.select(layers=layers), net, images, seeds=(0,), percentages=[30, 60])
        counts.append(sum(passes))
    hook.remove()
    maps_of_a_layer = 2 * 2 * 2  # methods, targets, samples
    assert counts[1] == counts[0]
    # 12 maps of layers and 6 that know nothing, of 2 images, 4 times each: as few passes as can be.
    assert passes[-5:] == [32, 32, 32, 32, 16]
    assert counts[2] - counts[0] == 2 * maps_of_a_layer * 2 * 2  # directions and percentages
    assert result.scores.shape[0] == 3


def test_the_best_layer_is_where_the_series_is_highest(
    stack: camfuse.CamStack, found: YbRoad
) -> None:
    assert torch.equal(found.stack.series["ybroad"], found.scores.float())
    assert torch.equal(found.maximum, found.scores.amax(0))
    torch.testing.assert_close(found.mean, found.scores.mean(0))
    best = found.best_layer(method=1, target=0, sample=1)
    assert best.name == found.layers[int(found.scores[:, 1, 0, 1].argmax())].name
    report = found.to_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    one = report["results"][5]  # layercam, the first target, the second sample
    assert (one["method"], one["sample"], one["best_layer"]) == ("layercam", 1, best.name)
    margin = float(found.maximum[1, 0, 1] - found.sobel.mean[0, 1])
    assert one["baselines"]["sobel"]["margin"] == pytest.approx(margin)


def test_noise_is_never_best_and_hidden_layers_have_no_score(
    stack: camfuse.CamStack, net: Net, images: Tensor, found: YbRoad
) -> None:
    winner = int(found.best[0, 0, 0])
    layers = list(stack.layers)
    layers[winner] = dataclasses.replace(layers[winner], degenerate=("gradcam",))
    layers[3 - winner] = dataclasses.replace(layers[3 - winner], shown=False)
    other = ybroad(dataclasses.replace(stack, layers=tuple(layers)), net, images, seeds=(0, 1))
    assert len(other.layers) == 3
    assert other.best_layer().name != layers[winner].name
    assert bool(other.stack.series["ybroad"][3 - winner].isnan().all())
    kept = [i for i in range(4) if i != 3 - winner]
    torch.testing.assert_close(other.scores, found.scores[kept], atol=1e-6, rtol=0)


def test_a_map_that_says_nothing_beats_no_baseline(net: Net, images: Tensor) -> None:
    stack = camfuse.layer_cams(net, images, layers=["third"])
    silent = dataclasses.replace(stack, flat=torch.full_like(stack.flat, 0.1))  # upsamples to more
    found = ybroad(silent, net, images, noise=0)
    assert float(found.scores.abs().max()) == 0
    assert not bool(found.beats_baselines.any())


def test_functions_are_scored_by_what_they_return(net: Net, images: Tensor) -> None:
    def target(output: Tensor) -> Tensor:
        return output[:, 1] - output[:, 0]

    stack = camfuse.layer_cams(net, images, layers=["third"], target=target)
    with pytest.raises(ValueError, match="target: expected the function that the stack explains"):
        ybroad(stack, net, images)
    found = ybroad(stack, net, images, target=target, output="logit", seeds=(0,))
    alone = road(net, images, stack.maps(0)[0, 0], target=target, output="logit")
    torch.testing.assert_close(found.scores[0, 0, 0], alone.combined, atol=1e-5, rtol=0)


def test_bad_input_is_named(stack: camfuse.CamStack, net: Net, images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"images: expected 2 of size \(24, 24\), as in the stack"):
        ybroad(stack, net, images[:1])
    flat = stack.flat.clone()
    flat[stack.offset(2, sample=1)] = math.nan
    with pytest.raises(ValueError, match="stack: the map of second, sample 1, is not finite"):
        ybroad(dataclasses.replace(stack, flat=flat), net, images)
    with pytest.raises(ValueError, match="target: expected 2, as in the stack, got 1"):
        ybroad(stack, net, images, target=0)


def test_random_maps_are_coarse_and_edges_are_where_the_image_changes() -> None:
    maps = random_maps(3, (28, 56), seed=4)
    assert maps.shape == (3, 28, 56)
    assert torch.equal(maps[:2], random_maps(2, (28, 56), seed=4))
    assert float((maps[:, 1:] - maps[:, :-1]).abs().max()) < 0.3
    step = torch.zeros(1, 3, 6, 6)
    step[..., 3:] = 1
    expected = torch.tensor([0, 0, 0.5, 0.5, 0, 0]).expand(1, 6, 6)
    torch.testing.assert_close(sobel_maps(step), expected)
    torch.testing.assert_close(sobel_maps(step.mT), expected.mT)
