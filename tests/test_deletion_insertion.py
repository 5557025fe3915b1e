"""Deletion and insertion: against a sum worked by hand, torchcam and Quantus."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch.nn import functional as F

from camfuse.metrics import deletion_auc, deletion_curve, insertion_auc, insertion_curve
from faithful import LinearModel, linear_model, seeded, small_net, unit_maps

CONTRIBUTIONS = torch.tensor([[[[2.0, 4.0], [1.0, 3.0]]]])
BY_HAND = {
    deletion_curve: ([10, 6, 3, 1, 0], 3.75),
    insertion_curve: ([0, 4, 7, 9, 10], 6.25),
}


@pytest.mark.parametrize("curve", BY_HAND)
def test_the_largest_goes_or_comes_first(curve):
    model = LinearModel(torch.ones(1, 1, 2, 2)).eval()
    found = curve(
        model, CONTRIBUTIONS, CONTRIBUTIONS[0], 0, steps=4, baseline="zero", output="logit"
    )
    scores, auc = BY_HAND[curve]
    assert found.scores.tolist() == [scores]
    assert found.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.auc.tolist() == [auc]


def test_no_order_is_better_than_that_of_the_contributions():
    model, images = linear_model(), seeded(4, 2, 4, 4)
    options = {"target": 1, "steps": 16, "output": "logit"}
    best = model.contributions(images, 1)
    for seed in range(5):
        other = seeded(4, 4, 4, seed=seed)
        assert (
            deletion_auc(model, images, best, **options)
            < deletion_auc(model, images, other, **options)
        ).all()
        assert (
            insertion_auc(model, images, best, baseline="zero", **options)
            > insertion_auc(model, images, other, baseline="zero", **options)
        ).all()


class Extractor:
    """What torchcam asks for maps, with maps that are already there."""

    def __init__(self, model, maps):
        self.model, self.maps = model, maps

    def __call__(self, *_, **__):
        return [self.maps]

    def fuse_cams(self, maps):
        return maps[0]

    def _hooks_off(self):
        return contextlib.nullcontext()


@pytest.mark.parametrize("classes", [None, [2, 0, 4]], ids=["arg-max", "given"])
def test_areas_are_those_of_torchcam(classes):
    from torchcam.metrics import DeletionInsertionMetric

    model, images, maps = small_net(), seeded(3, 3, 8, 8, dtype=torch.float32), unit_maps(3, 4, 4)
    peer = DeletionInsertionMetric(Extractor(model, maps), lambda y: y.softmax(1), steps=16)
    peer.update(images, classes)
    found = {
        "deletion_auc": deletion_auc(model, images, maps, classes, steps=16),
        "insertion_auc": insertion_auc(model, images, maps, classes, steps=16, baseline="zero"),
    }
    assert {name: float(one.mean()) for name, one in found.items()} == pytest.approx(
        peer.summary(), abs=1e-6
    )


def test_the_curve_of_one_channel_is_quantus_pixel_flipping():
    # With more channels Quantus flips single values of pixels rather than pixels.
    import quantus

    model, images, maps = small_net(1), seeded(3, 1, 8, 8, dtype=torch.float32), unit_maps(3, 8, 8)
    peer = quantus.PixelFlipping(
        features_in_step=8,
        normalise=False,
        perturb_baseline=0.0,
        disable_warnings=True,
    )
    scores = peer(
        model, images.numpy(), torch.tensor([1, 0, 3]).numpy(), maps[:, None].numpy(), softmax=True
    )
    found = deletion_curve(model, images, maps, [1, 0, 3], steps=8)
    torch.testing.assert_close(found.scores[:, 1:].float(), torch.tensor(scores), atol=1e-6, rtol=0)


def test_only_the_order_of_a_map_matters():
    model, images, maps = small_net(), seeded(2, 3, 8, 8, dtype=torch.float32), unit_maps(2, 8, 8)
    found = deletion_auc(model, images, maps, steps=4)
    assert torch.equal(deletion_auc(model, images, 100 * maps.log(), steps=4), found)


def test_equals_come_in_a_random_order_of_the_seed_the_same_for_all_images():
    model = LinearModel(2.0 ** torch.arange(16).view(1, 1, 4, 4)).eval()
    images, maps = torch.ones(3, 1, 4, 4), torch.full((3, 3, 3), 0.1)
    curves = [
        deletion_curve(model, images, maps, 0, steps=16, output="logit", seed=seed).scores
        for seed in (0, 0, 1)
    ]
    assert torch.equal(curves[0], curves[1])
    assert not torch.equal(curves[0], curves[2])
    assert torch.equal(curves[0][:1].expand(3, -1), curves[0])
    removed = (-curves[0][0].diff()).log2()
    assert sorted(removed.tolist()) == list(range(16))
    assert removed.tolist() not in (list(range(16)), list(range(16))[::-1])


def test_steps_that_do_not_divide_the_image_take_as_near_as_can_be():
    model, ones = LinearModel(torch.ones(1, 1, 2, 5)).eval(), torch.ones(1, 1, 2, 5)
    curve = deletion_curve(model, ones, ones[0], 0, steps=4, output="logit")
    assert curve.scores.tolist() == [[10, 8, 5, 2, 0]]
    assert curve.fractions.tolist() == pytest.approx([0, 0.2, 0.5, 0.8, 1])
    assert float(curve.auc) == pytest.approx(5)  # straight, so that widths of steps must be right


def test_insertion_begins_with_a_blurred_image_and_may_with_any_other():
    model, images, maps = linear_model(), seeded(2, 2, 4, 4), seeded(2, 4, 4, seed=1)
    start = insertion_curve(model, images, maps, 0, steps=2, output="logit").scores[:, 0]
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    window = (-(offsets[:, None] ** 2 + offsets**2) / (2 * 5.0**2)).exp()
    window = (window / window.sum()).expand(2, 1, -1, -1)
    blurred = F.conv2d(F.pad(images, [5] * 4, mode="replicate"), window, groups=2)
    torch.testing.assert_close(start, model(blurred)[:, 0].detach(), atol=1e-6, rtol=0)
    gray = torch.tensor([0.5, -0.5]).view(2, 1, 1)
    start = insertion_curve(model, images, maps, 0, steps=2, output="logit", baseline=gray).scores
    torch.testing.assert_close(start[:, 0], model(gray.double().expand_as(images))[:, 0].detach())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"steps": 65}, "steps: expected at most the 64 pixels of an image, got 65"),
        ({"baseline": "gray"}, "baseline: expected 'zero', 'blur' or a tensor, got 'gray'"),
        ({"baseline": torch.zeros(7)}, r"baseline: .* broadcasts to \(2, 3, 8, 8\), got \(7,\)"),
        ({"target": torch.zeros(2, 2).long()}, "target: expected one target, got 2"),
        ({"maps": torch.zeros(3, 8, 8)}, r"maps: expected \(2, h, w\), .* got \(3, 8, 8\)"),
        ({"maps": torch.zeros(2, 1, 8, 8)}, r"maps: .* got torch.float32 \(2, 1, 8, 8\)"),
        ({"maps": torch.zeros(2, 8, 8).long()}, "maps: expected floating maps"),
        ({"images": torch.zeros(2, 8, 8)}, "images: expected floating images"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_model_runs(changes, message):
    model = small_net()
    model.register_forward_hook(lambda *_: pytest.fail("the model ran"))
    arguments = {"images": torch.zeros(2, 3, 8, 8), "maps": torch.zeros(2, 8, 8)} | changes
    with pytest.raises(ValueError, match=message):
        deletion_auc(model, **arguments)


def test_a_map_that_is_not_finite_is_named():
    maps = torch.zeros(2, 8, 8)
    maps[1, 3, 3] = torch.nan
    with pytest.raises(ValueError, match="maps: sample 1 is not finite"):
        deletion_auc(small_net(), torch.zeros(2, 3, 8, 8), maps)


def test_models_in_training_mode_are_refused():
    with pytest.raises(ValueError, match="training mode"):
        deletion_auc(small_net().train(), torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8))
