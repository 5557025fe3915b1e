"""Maps against masks and boxes: numbers worked by hand, peers, and what must hold of any map."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

pytest.importorskip("quantus")
pytest.importorskip("torchmetrics")

import quantus
from torchmetrics import MetricCollection

from camfuse import metrics

# A 4 x 4 map whose heat adds up to 10, and an object in its upper left quarter.
HEAT = torch.tensor(
    [[[4.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 2.0]]]
)
QUARTER = torch.zeros(1, 4, 4, dtype=torch.bool)
QUARTER[0, :2, :2] = True

FUNCTIONS = {
    "energy": metrics.energy_pointing_game,
    "pointing": metrics.pointing_game,
    "difference": metrics.inside_outside,
    "heat ratio": metrics.effective_heat_ratio,
    "iou": lambda maps, regions: metrics.overlap(maps, regions).iou[:, 0],
    "dice": lambda maps, regions: metrics.overlap(maps, regions).dice[:, 0],
}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def random_maps(count: int = 6, side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(count, side, side, generator=generator) > 0.7
    return torch.rand(count, side, side, generator=generator), masks


def test_values_worked_by_hand():
    assert metrics.energy_pointing_game(HEAT, QUARTER).item() == pytest.approx(0.6)
    assert metrics.pointing_game(HEAT, QUARTER).item() == 1
    assert metrics.inside_outside(HEAT, QUARTER).item() == pytest.approx(1.5 / 4 - 1 / 12)
    # At half of the maximum 4 and 2 are marked: one in the object of four pixels, one outside.
    found = metrics.overlap(HEAT, QUARTER)
    assert (found.iou.item(), found.dice.item()) == (pytest.approx(1 / 5), pytest.approx(2 / 6))
    # Six pixels are hot, 1 1 1 1 2 4 in quarters. Their quantiles are 1 up to q = 0.6, where all
    # six count, three of them inside; from 0.7 to 0.8 two do, one inside; then the hottest alone.
    ratios = [0.5] * 9 + [1.0, 1.0]
    expected = np.trapezoid(ratios, dx=0.1)
    assert metrics.effective_heat_ratio(HEAT, QUARTER).item() == pytest.approx(expected)
    heat = [(1 + 0.25 + 0.25) / 6] * 7 + [1 / 2] * 2 + [1.0, 1.0]
    found = metrics.effective_heat_ratio(HEAT, QUARTER, weighting="heat").item()
    assert found == pytest.approx(np.trapezoid(heat, dx=0.1))


def test_negative_heat_is_none():
    heat = HEAT.clone()
    heat[0, 1, 1] = heat[0, 3, 0] = -9
    assert metrics.energy_pointing_game(heat, QUARTER).item() == pytest.approx(0.6)


def test_the_last_quantile_of_heat_is_a_hundredth_below_the_maximum():
    # At q = 1 both are hot, the second by a hair; at every other q as well, or more.
    maps = torch.tensor([[[1.0, 0.995, 0.0]]])
    masks = torch.tensor([[[False, True, False]]])
    assert metrics.effective_heat_ratio(maps, masks).item() == pytest.approx(0.5)


def test_ignored_pixels_count_nowhere_but_the_object_always_does():
    ignore = torch.zeros_like(QUARTER)
    ignore[0, 3] = True
    ignore[0, 0] = True
    assert metrics.energy_pointing_game(HEAT, QUARTER, ignore=ignore).item() == pytest.approx(6 / 7)
    assert metrics.overlap(HEAT, QUARTER, ignore=ignore).iou.item() == pytest.approx(1 / 4)
    found = metrics.inside_outside(HEAT, QUARTER, ignore=ignore).item()
    assert found == pytest.approx(1.5 / 4 - 0.25 / 6)


def test_a_maximum_may_miss_by_the_tolerance_in_a_circle():
    maps = torch.zeros(1, 9, 9)
    maps[0, 4, 4] = 1
    mask = torch.zeros(1, 9, 9, dtype=torch.bool)
    mask[0, 1, 0] = True  # 3 rows and 4 columns away: 5 pixels
    assert metrics.pointing_game(maps, mask, tolerance=4).item() == 0
    assert metrics.pointing_game(maps, mask, tolerance=5).item() == 1


def test_maxima_that_tie_count_by_the_part_that_hits():
    assert metrics.pointing_game(torch.ones(1, 4, 4), QUARTER).item() == pytest.approx(4 / 16)


def test_boxes_are_half_open_and_united():
    boxes = [torch.tensor([[0, 0, 2, 1], [1, 0, 2, 2], [0.4, 0.6, 1.4, 1.6]])]
    # The first two make a corner of three pixels; the third holds the center of the fourth.
    for name, function in FUNCTIONS.items():
        assert torch.equal(function(HEAT, boxes), function(HEAT, QUARTER)), name


def test_a_box_holds_the_pixel_whose_center_it_begins_at_not_the_one_it_ends_at():
    boxes = [torch.tensor([[0.5, 0.5, 2.5, 2.5]])]
    maps = QUARTER.float()
    assert metrics.overlap(maps, boxes).iou.item() == 1


def test_peers_agree():
    maps, masks = random_maps()
    batch = {
        "model": None,
        "x_batch": np.zeros((6, 1, 16, 16)),
        "y_batch": np.zeros(6, int),
        "a_batch": maps[:, None].numpy(),
        "s_batch": masks[:, None].numpy(),
    }
    quiet = {"disable_warnings": True, "normalise": False, "abs": False}
    pairs = [
        (quantus.RelevanceMassAccuracy(**quiet), metrics.energy_pointing_game),
        (quantus.AttributionLocalisation(**quiet), metrics.energy_pointing_game),
        (quantus.PointingGame(**quiet), metrics.pointing_game),
    ]
    for theirs, ours in pairs:
        np.testing.assert_allclose(theirs(**batch), ours(maps, masks), rtol=1e-5)


def test_overlaps_at_many_thresholds_are_those_of_each_by_itself():
    maps, masks = random_maps()
    levels = torch.tensor([0.9, 0.0, 0.25, 1.0])
    found = metrics.overlap(maps, masks, levels)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    for i, level in enumerate(levels):
        marked = (maps - low) / (high - low) >= level
        common, union = (marked & masks).sum((1, 2)), (marked | masks).sum((1, 2))
        torch.testing.assert_close(found.iou[:, i], common.double() / union)
        both = marked.sum((1, 2)) + masks.sum((1, 2))
        torch.testing.assert_close(found.dice[:, i], 2 * common.double() / both)


@every_function
def test_a_perfect_map_scores_one(function):
    _, masks = random_maps()
    assert torch.equal(function(masks.float(), masks).float(), torch.ones(6))


@every_function
def test_the_scale_of_a_map_does_not_matter_nor_its_place_in_the_batch(function):
    maps, masks = random_maps()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(function(maps * 7, masks), function(maps, masks))
    assert torch.equal(function(maps[order], masks[order]), function(maps, masks)[order])


@every_function
def test_a_constant_map_has_a_value_and_an_empty_batch_none(function):
    assert function(torch.zeros(1, 4, 4), QUARTER).item() in (0, 0.25)
    assert function(torch.zeros(0, 4, 4), QUARTER[:0]).shape == (0,)


@every_function
@pytest.mark.parametrize(
    ("maps", "regions", "error", "message"),
    [
        (
            HEAT.long(),
            QUARTER,
            ValueError,
            r"maps: expected floating maps \(B, h, w\), got torch.int64",
        ),
        (
            HEAT[0],
            QUARTER,
            ValueError,
            r"maps: expected floating maps .* got torch.float32 \(4, 4\)",
        ),
        (HEAT / 0, QUARTER, ValueError, "maps: sample 0 is not finite"),
        (HEAT, QUARTER[:, :3], ValueError, r"regions: expected \(1, 4, 4\) as the maps, got"),
        (HEAT, QUARTER.float(), TypeError, "regions: expected a bool tensor, got torch.float32"),
        (HEAT, ~QUARTER & QUARTER, ValueError, "regions: .* sample 0 has none"),
        (HEAT, None, TypeError, "regions: expected Tensor or Sequence, got NoneType"),
        (HEAT, [], ValueError, "regions: expected 1 samples, got 0"),
        (HEAT, [torch.zeros(0, 4)], ValueError, r"regions\[0\]: expected \[n, 4\] with n at"),
        (HEAT, [torch.tensor([[2, 0, 2, 4]])], ValueError, r"regions\[0\]: expected x1 < x2"),
        (HEAT, [torch.tensor([[0, 0, 5, 4]])], ValueError, "boxes within 4 x 4 pixels, got"),
        (HEAT, [torch.tensor([[0, 0, torch.nan, 4]])], ValueError, "expected x1 < x2"),
    ],
)
def test_what_does_not_fit_is_refused(function, maps, regions, error, message):
    with pytest.raises(error, match=message):
        function(maps, regions)


def test_a_region_without_outside_has_no_difference():
    with pytest.raises(ValueError, match="expected a pixel outside, sample 0 has none"):
        metrics.inside_outside(HEAT, torch.ones_like(QUARTER))


def test_options_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"thresholds: expected numbers in \[0, 1\]"):
        metrics.overlap(HEAT, QUARTER, 1.5)
    with pytest.raises(ValueError, match="weighting: expected 'heat' or 'count'"):
        metrics.EffectiveHeatRatio("mass")
    with pytest.raises(ValueError, match="tolerance: expected at least 0"):
        metrics.PointingGame(-1)
    with pytest.raises(ValueError, match="step: expected more than 0 and at most 1, got 0"):
        metrics.BestMaskIoU(0)


def test_metrics_are_means_over_all_images():
    maps, masks = random_maps()
    pairs = [
        (metrics.EnergyPointingGame(), FUNCTIONS["energy"]),
        (metrics.PointingGame(), FUNCTIONS["pointing"]),
        (metrics.InsideOutside(), FUNCTIONS["difference"]),
        (metrics.EffectiveHeatRatio(), FUNCTIONS["heat ratio"]),
        (metrics.MaskIoU(), FUNCTIONS["iou"]),
        (metrics.MaskDice(), FUNCTIONS["dice"]),
    ]
    for metric, function in pairs:
        metric.update(maps[:4], masks[:4])
        metric.update(maps[4:], masks[4:])
        torch.testing.assert_close(metric.compute(), function(maps, masks).double().mean())


def test_metrics_take_the_options_of_torchmetrics():
    for make in (metrics.EnergyPointingGame, metrics.MaskDice, metrics.BestMaskIoU, metrics.PxAP):
        assert make(sync_on_compute=False).sync_on_compute is False
    for make in (metrics.MaxBoxAcc, metrics.MaxBoxAccV2, metrics.TopLocalization):
        assert make(sync_on_compute=False).sync_on_compute is False


def test_metrics_that_begin_alike_stay_apart_in_a_collection():
    collection = MetricCollection(
        {"low": metrics.MaskIoU(0.2), "high": metrics.MaskIoU(0.9), "dice": metrics.MaskDice()}
    )
    collection.update(QUARTER.float(), QUARTER)  # 1 for all of them
    collection.update(HEAT, QUARTER)
    expected = {"low": (1 + 3 / 7) / 2, "high": (1 + 1 / 4) / 2, "dice": (1 + 2 / 6) / 2}
    assert collection.compute() == pytest.approx(expected)


def test_one_best_threshold_for_all_images_is_no_better_than_one_for_each():
    # Two images whose object is found at 0.5 and above, and at 0.3 alone.
    maps = torch.tensor([[[1.0, 0.4, 0.0]], [[1.0, 0.4, 0.0]]])
    masks = torch.tensor([[[True, False, False]], [[True, True, False]]])
    over_all, each = metrics.BestMaskIoU(), metrics.BestMaskIoU(per_image=True)
    dice = metrics.BestMaskDice()
    for metric in (over_all, each, dice):
        metric.update(maps, masks)
    assert over_all.compute() == pytest.approx((1 + 1 / 2) / 2)
    assert each.compute() == 1
    assert dice.compute() == pytest.approx((1 + 2 / 3) / 2)


def test_opencv_is_asked_for_when_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"found by OpenCV.*pip install 'camfuse\[metrics\]'"):
        metrics.box_overlaps(HEAT, [torch.tensor([[0, 0, 1, 1]])])
