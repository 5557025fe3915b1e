"""Which pixels are removed: exact amounts, ties, and pytorch-grad-cam's percentiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from camfuse.metrics.ranking import percentile_masks, removal_masks

PERCENTAGES = (10, 25, 50, 90)


def random_maps(count: int = 3) -> Tensor:
    return torch.randn(count, 7, 9, generator=torch.Generator().manual_seed(0))


def test_exactly_the_most_and_the_least_relevant_are_removed() -> None:
    maps = random_maps()
    for masks, sign in zip(removal_masks(maps, PERCENTAGES), (1, -1), strict=True):
        for row, values in zip(masks, sign * maps, strict=True):
            for mask, share in zip(row, PERCENTAGES, strict=True):
                assert int(mask.sum()) == round(share / 100 * 63)
                assert values[mask].min() > values[~mask].max()


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_ties_are_removed_in_one_random_order(levels: int) -> None:
    maps = (random_maps() * levels).clamp(0, levels).floor()  # many zeros, as after ReLU
    most, least = removal_masks(maps, PERCENTAGES, seed=3)
    opposite = removal_masks(-maps, PERCENTAGES, seed=3)
    assert torch.equal(most, opposite[1])
    assert torch.equal(least, opposite[0])
    order = torch.randperm(63, generator=torch.Generator().manual_seed(3))
    for masks, sign in ((most, -1.0), (least, 1.0)):
        for row, values in zip(masks, maps, strict=True):
            key = [(sign * float(values.flatten()[i]), place) for place, i in enumerate(order)]
            expected = [int(order[place]) for _, place in sorted(key)]
            for mask, share in zip(row, PERCENTAGES, strict=True):
                amount = round(share / 100 * 63)
                assert sorted(expected[:amount]) == mask.flatten().nonzero()[:, 0].tolist()


def test_of_an_image_too_small_for_a_share_nothing_is_removed() -> None:
    for masks in removal_masks(random_maps(), [0.5]):
        assert not masks.any()


def test_both_masks_of_a_constant_map_are_equal_and_another_seed_takes_other_pixels() -> None:
    most, least = removal_masks(torch.zeros(1, 8, 8), [50])
    assert torch.equal(most, least)
    assert not torch.equal(most, removal_masks(torch.zeros(1, 8, 8), [50], seed=1)[0])


def test_percentiles_are_those_of_numpy() -> None:
    maps = random_maps().sigmoid()
    maps[0] = (maps[0] - 0.5).relu()  # more zeros than a percentile
    masks = percentile_masks(maps, [20, 80])
    for relevance, removed in zip((maps.numpy(), 1 - maps.numpy()), masks, strict=True):
        for one, row in zip(relevance, removed, strict=True):
            for share, mask in zip((20, 80), row, strict=True):
                np.testing.assert_array_equal(~mask.numpy(), one < np.percentile(one, share))
    assert bool(masks[0][0, 0].all())  # the threshold is 0, and nothing is below
    with pytest.raises(ValueError, match=r"maps: ranking='percentile' takes maps in \[0, 1\]"):
        percentile_masks(random_maps(), [20])
