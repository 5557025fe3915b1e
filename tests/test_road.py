"""ROAD against pytorch-grad-cam, against closed forms, and against itself."""

from __future__ import annotations

import functools
from unittest import mock

import pytest
import torch
from pytorch_grad_cam.metrics import road as peer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import Tensor, nn

from camfuse.metrics.removal import Removal
from camfuse.metrics.road import Road, road
from camfuse.stack import resize

SIZE = 24
TARGETS = [1, 4]


class Region(nn.Module):
    """Two logits: the mean of the left half of the image, and 0."""

    def forward(self, x: Tensor) -> Tensor:
        left = x[..., : x.shape[-1] // 2].mean((1, 2, 3))
        return torch.stack([left, torch.zeros_like(left)], 1)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU()]
    head = [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 6)]
    with torch.no_grad():
        head[-1].weight.mul_(4)  # so that it is sure of something
    return nn.Sequential(*layers, *head).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    noise = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return resize(noise * 2, (SIZE, SIZE), leading=2).contiguous()


@pytest.fixture(scope="module")
def maps() -> Tensor:
    """Displayed maps of a coarse grid, with many zeros."""
    coarse = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(2)).relu()
    return resize(coarse / coarse.amax((1, 2), keepdim=True), (SIZE, SIZE), leading=1)


@pytest.mark.parametrize("percentiles", [[20, 40, 60, 80], [90]])
def test_percentile_mode_is_pytorch_grad_cam(
    net: nn.Module, images: Tensor, maps: Tensor, percentiles: list[int]
) -> None:
    found = road(
        net, images, maps, target=TARGETS, percentages=percentiles, noise=0, ranking="percentile"
    )
    targets = [ClassifierOutputSoftmaxTarget(one) for one in TARGETS]
    without_noise = functools.partialmethod(peer.NoisyLinearImputer.__init__, noise=0)
    with mock.patch.object(peer.NoisyLinearImputer, "__init__", without_noise):
        arguments = (images, maps.numpy(), targets, net)
        combined = peer.ROADCombined(percentiles)(*arguments)
        most = peer.ROADMostRelevantFirstAverage(percentiles)(*arguments)
        least = peer.ROADLeastRelevantFirstAverage(percentiles)(*arguments)
    expected = torch.from_numpy(combined).double()
    torch.testing.assert_close(found.combined, expected, atol=1e-4, rtol=0)
    assert float(expected.abs().max()) > 0.005
    for scores, drops in ((found.morf, most), (found.lerf, least)):
        drop = scores[0].mean(0) - found.unperturbed
        torch.testing.assert_close(drop, torch.from_numpy(drops).double(), atol=1e-4, rtol=0)


def test_the_map_of_the_region_that_counts_has_the_road_that_it_must() -> None:
    # The left half is 2, the right half -2. Half of the pixels are removed: most relevant first
    # leaves only the right half, so all of the image becomes -2; least relevant first leaves 2.
    image = torch.full((1, 1, 8, 8), 2.0)
    image[..., 4:] = -2
    ranked = torch.zeros(1, 8, 8)
    ranked[..., :4] = 1
    found = road(Region().eval(), image, ranked, target=0, percentages=[50], noise=0)
    high, low = (float(torch.tensor(one).sigmoid()) for one in (2.0, -2.0))
    assert float(found.morf) == pytest.approx(low, abs=1e-5)
    assert float(found.lerf) == pytest.approx(high, abs=1e-5)
    assert float(found.combined) == pytest.approx((high - low) / 2, abs=1e-5)
    logit = road(Region().eval(), image, ranked, 0, percentages=[50], noise=0, output="logit")
    assert float(logit.combined) == pytest.approx(2, abs=1e-4)
    opposite = road(Region().eval(), image, -ranked, target=0, percentages=[50], noise=0)
    assert float(opposite.combined) == pytest.approx((low - high) / 2, abs=1e-5)
    constant = road(Region().eval(), image, 0 * ranked, target=0, noise=0)
    assert float(constant.combined) == 0


def test_noise_is_that_of_the_seeds_whatever_the_batch_and_the_scale(
    net: nn.Module, images: Tensor, maps: Tensor
) -> None:
    def measured(batch_size: int = 32, seeds: tuple[int, ...] = (0, 7)) -> Road:
        return road(net, images, maps, seeds=seeds, noise=0.5, batch_size=batch_size)

    found = measured()
    assert found.morf.shape == found.lerf.shape == (2, 4, 2)
    assert found.spread.min() > 0
    for other in (measured(5), measured(1)):
        torch.testing.assert_close(other.combined, found.combined, atol=1e-6, rtol=0)
    alone = measured(seeds=(7,))
    torch.testing.assert_close(alone.morf[0], found.morf[1], atol=1e-6, rtol=0)
    assert float(alone.spread.max()) == 0
    turned = road(net, images.flip(0), 3 * maps.flip(0), seeds=(0, 7), noise=0.5)
    torch.testing.assert_close(turned.combined.flip(0), found.combined, atol=1e-6, rtol=0)


def test_another_precision_says_how_far_it_is_off(
    net: nn.Module, images: Tensor, maps: Tensor
) -> None:
    exact = road(net, images, maps)
    coarse = road(net, images, maps, precision=torch.bfloat16)
    assert exact.deviation == 0
    assert 0 < float((coarse.combined - exact.combined).abs().max()) < coarse.deviation < 0.1


def test_one_noise_serves_all_maps_where_pixels_are_removed(images: Tensor, maps: Tensor) -> None:
    given: dict[float, Tensor] = {}
    removal = {noise: Removal([50], noise) for noise in (0.0, 1.0)}
    samples = torch.zeros(2, dtype=torch.long)
    for noise, one in removal.items():

        def watched(copies: Tensor, who: Tensor, noise: float = noise) -> Tensor:
            given[noise] = copies.clone()
            return torch.zeros(1, len(who), dtype=torch.float64)

        scorer = mock.Mock(side_effect=watched, images=images, targets=samples[:1], batch_size=32)
        one.scores(scorer, lambda part: maps[part], samples)
    masks = removal[0.0].masks(maps).flatten(0, 2)[:, None]  # both directions of either map
    noise = given[1.0] - given[0.0]
    assert float(noise.masked_select(~masks).abs().max()) == 0
    both = (masks[0] & masks[2]).expand_as(noise[0])
    torch.testing.assert_close(noise[0][both], noise[2][both], atol=1e-5, rtol=0)
    assert 0.9 < float(noise.masked_select(masks).std()) < 1.1


def test_a_coarse_map_is_ranked_as_it_is_displayed(net: nn.Module, images: Tensor) -> None:
    coarse = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(3))
    fine = resize(coarse, (SIZE, SIZE), leading=1)
    a, b = (road(net, images, one, seeds=(1,)).morf for one in (coarse, fine))
    assert torch.equal(a, b)


BAD = [
    (
        {"maps": torch.zeros(1, 7, 7)},
        r"maps: expected \(2, h, w\), a map per image, got \(1, 7, 7\)",
    ),
    ({"maps": torch.full((2, 7, 7), torch.nan)}, "maps: sample 0 is not finite"),
    ({"percentages": []}, "percentages: expected at least one, got none"),
    ({"percentages": [0]}, "percentages: expected more than 0 and less than 100, got 0"),
    ({"percentages": [20, 100]}, "percentages: expected more than 0 and less than 100, got 100"),
    ({"percentages": [20, 20]}, "percentages: expected each once"),
    ({"seeds": []}, "seeds: expected at least one, got none"),
    ({"noise": -1}, "noise: expected a finite number"),
    ({"ranking": "otsu"}, "ranking: expected 'rank' or 'percentile'"),
    ({"target": torch.zeros(3, 2, dtype=torch.long)}, "target: expected one target, got 3"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_named(
    net: nn.Module, images: Tensor, maps: Tensor, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        road(net, images, **{"maps": maps, **arguments})
