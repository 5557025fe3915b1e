"""Complexity, coherency and what they make with drop: ADCC."""

from __future__ import annotations

import math

import pytest
import torch

import camfuse
from camfuse.metrics import adcc, coherency, complexity, confidence_drop, entropy
from faithful import seeded, small_net, unit_maps

IMAGES = seeded(3, 3, 8, 8, seed=2, dtype=torch.float32)
MAPS = unit_maps(3, 8, 8)


def test_complexity_is_the_share_of_the_image_that_is_lit():
    maps = torch.stack([torch.zeros(2, 2), torch.ones(2, 2), torch.tensor([[1, 0.5], [0.5, 0]])])
    assert complexity(maps).tolist() == [0, 1, 0.5]


def test_entropy_counts_the_pixels_that_share_a_map():
    one, two, all_four, none = torch.zeros(4, 2, 2)
    one[0, 0], two[0], all_four[:] = -3, 5, 0.1
    maps = torch.stack([one, two, all_four, none])
    assert entropy(maps).tolist() == pytest.approx([0, math.log(2), math.log(4), math.log(4)])


@pytest.mark.parametrize("factor", [-1, 1e-30, 1e30])
def test_a_factor_leaves_entropy_as_it_is(factor):
    torch.testing.assert_close(entropy(factor * MAPS), entropy(MAPS))


def test_entropy_is_the_complexity_of_quantus():
    # For maps in which a pixel counts at least 1e-12: Quantus adds that to every share.
    import quantus

    peer = quantus.Complexity(disable_warnings=True)
    expected = peer(
        small_net(), IMAGES.numpy(), torch.zeros(3).long().numpy(), MAPS[:, None].numpy().copy()
    )
    assert entropy(MAPS).tolist() == pytest.approx(list(expected), abs=1e-5)


def test_complexity_is_that_of_pytorch_grad_cam():
    from pytorch_grad_cam.metrics.arcc import Complexity

    assert complexity(MAPS).tolist() == pytest.approx(Complexity()(MAPS.numpy()).tolist(), abs=1e-6)


@pytest.mark.parametrize("function", [complexity, entropy])
def test_maps_that_are_none_are_refused(function):
    with pytest.raises(
        ValueError, match=r"maps: expected floating maps \(B, h, w\), got .*\(4, 4\)"
    ):
        function(torch.zeros(4, 4))
    with pytest.raises(ValueError, match="maps: sample 1 is not finite"):
        function(torch.tensor([0, torch.inf]).view(2, 1, 1))


@pytest.mark.parametrize(
    ("again", "expected"),
    [(lambda m: 3 * m + 1, 1), (lambda m: -m, 0), (torch.zeros_like, 0.5)],
    ids=["kept", "inverted", "empty"],
)
def test_coherency_is_one_where_the_map_stays(again, expected):
    found = coherency(small_net(), IMAGES, MAPS, lambda *_: again(MAPS))
    assert found.tolist() == pytest.approx([expected] * 3)


def test_masked_images_are_explained_for_the_classes_of_the_unmasked():
    model, asked = small_net(), []

    def explain(images, target):
        asked.append((images, target))
        return camfuse.cam(model, images, "2", target=target)

    with torch.no_grad():
        found = coherency(model, IMAGES, MAPS, explain)
    (images, target), classes = asked[0], model(IMAGES).argmax(1)
    assert torch.equal(images, MAPS[:, None] * IMAGES)
    assert torch.equal(target, classes)
    again = camfuse.cam(model, images, "2", target=classes)
    expected = [
        float(torch.stack([a.flatten(), b.flatten()]).corrcoef()[0, 1])
        for a, b in zip(MAPS, again, strict=True)
    ]
    assert found.tolist() == pytest.approx([(1 + rho) / 2 for rho in expected], abs=1e-6)


def test_coherency_is_that_of_pytorch_grad_cam():
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.metrics.arcc import Coherency
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = small_net()
    targets = [ClassifierOutputTarget(1) for _ in IMAGES]
    with GradCAM(model, [model[2]]) as cam, torch.no_grad():
        with torch.enable_grad():
            expected = Coherency()(IMAGES, MAPS.numpy(), targets, model, cam)
        found = coherency(
            model, IMAGES, MAPS, lambda x, _: torch.from_numpy(cam(x, targets)), target=1
        )
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_adcc_is_the_harmonic_mean_of_three():
    model = small_net()
    again = unit_maps(3, 4, 4, seed=9)
    found = adcc(model, IMAGES, MAPS, lambda *_: again, 2)
    parts = (
        1 - confidence_drop(model, IMAGES, MAPS, 2),
        coherency(model, IMAGES, MAPS, lambda *_: again, 2),
        1 - complexity(MAPS),
    )
    for i, value in enumerate(found.tolist()):
        a, b, c = (float(part[i]) for part in parts)
        assert value == pytest.approx(3 * a * b * c / (a * b + b * c + c * a))


def test_adcc_is_nothing_where_one_of_the_three_is():
    ones = torch.ones(3, 8, 8)  # complexity 1
    assert adcc(small_net(), IMAGES, ones, lambda *_: MAPS).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (torch.zeros(2, 8, 8), ValueError, r"explain: .* maps: expected \(3, h, w\)"),
        (torch.full((3, 8, 8), torch.nan), ValueError, "explain: .* sample 0 is not finite"),
        (MAPS.numpy(), TypeError, "explain: expected it to return a tensor, got ndarray"),
    ],
)
def test_an_explanation_that_is_none_is_told_apart_from_the_maps(made, error, message):
    with pytest.raises(error, match=message):
        coherency(small_net(), IMAGES, MAPS, lambda *_: made)
