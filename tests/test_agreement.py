"""Sensitivity-n and infidelity: exact for linear models, and against captum's."""

from __future__ import annotations

import pytest
import torch

from camfuse.metrics import (
    GaussianNoise,
    RandomPixels,
    RemovedSquare,
    infidelity,
    sensitivity_n,
)
from camfuse.metrics.correlation import correlation
from faithful import linear_model, seeded, small_net

IMAGES = seeded(3, 2, 4, 4)
PERTURBATIONS = [RemovedSquare(2), GaussianNoise(0.3)]


def right_map(model, perturbation):
    """The map that says what a perturbation does to a linear model."""
    made = model.gradient if isinstance(perturbation, GaussianNoise) else model.contributions
    return made(IMAGES, 1)


@pytest.mark.parametrize("n", [1, 5, 15])
def test_gradient_times_input_says_all_of_a_linear_model(n):
    model = linear_model()
    maps = model.contributions(IMAGES, 1)
    found = sensitivity_n(model, IMAGES, maps, 1, n=n, subsets=20)
    torch.testing.assert_close(found, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(sensitivity_n(model, IMAGES, 3 - 2 * maps, 1, n=n), -found)


def test_another_map_says_less():
    model = linear_model()
    found = sensitivity_n(model, IMAGES, seeded(3, 4, 4, seed=5), 1, n=5)
    assert (found.abs() < 0.9).all()


def test_sensitivity_n_is_the_correlation_over_its_subsets():
    import numpy as np

    model, images = small_net(2), IMAGES.float()
    maps = seeded(3, 4, 4, seed=5, dtype=torch.float32)
    found = sensitivity_n(model, images, maps, [0, 1, 2], n=6, subsets=9, baseline="blur", seed=4)
    # The subsets themselves are what the seed says; all else is done again here.
    fields = RandomPixels(6).draw(9, 4, 4, torch.Generator().manual_seed(4))
    assert (fields.sum((1, 2)) == 6).all()
    from camfuse.metrics.replacement import replacement

    for i, (image, blurred) in enumerate(zip(images, replacement(images, "blur"), strict=True)):
        copies = torch.stack([torch.where(field, blurred, image) for field in fields])
        drops = (model(image[None]) - model(copies))[:, i].detach().numpy()
        sums = [float(maps[i][field].sum()) for field in fields]
        assert float(found[i]) == pytest.approx(np.corrcoef(sums, drops)[0, 1], abs=1e-5)


@pytest.mark.parametrize("size", [(3, 3), (11, 13)])
def test_a_constant_map_correlates_with_nothing_whatever_its_sums_round_to(size):
    model, images = linear_model(1, (11, 13)), seeded(2, 1, 11, 13)
    maps = torch.full((2, *size), 0.1, dtype=torch.float64)
    assert sensitivity_n(model, images, maps, n=60, subsets=20).tolist() == [0, 0]


@pytest.mark.parametrize("perturbation", PERTURBATIONS)
def test_a_linear_model_leaves_no_infidelity(perturbation):
    model = linear_model()
    maps = right_map(model, perturbation)
    exact = infidelity(model, IMAGES, maps, 1, perturbation=perturbation, scaled=False)
    assert (exact < 1e-13).all()
    off = infidelity(model, IMAGES, 2 * maps, 1, perturbation=perturbation, scaled=False)
    assert (off > 1e-3).all()


@pytest.mark.parametrize("perturbation", PERTURBATIONS)
def test_scaled_infidelity_does_not_depend_on_the_scale_of_a_map(perturbation):
    model, maps = linear_model(), seeded(3, 4, 4, seed=5)
    found, larger, zero = (
        infidelity(model, IMAGES, factor * maps, 1, perturbation=perturbation)
        for factor in (1, 1000, 0)
    )
    torch.testing.assert_close(found, larger)
    assert (found <= zero).all()


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("perturbation", PERTURBATIONS)
def test_infidelity_is_that_of_captum(perturbation, scaled):
    from captum.metrics import infidelity as captums

    model, images = small_net(1).double(), seeded(3, 1, 6, 6)
    maps = seeded(3, 6, 6, seed=5)
    fields = perturbation.draw(7, 6, 6, torch.Generator().manual_seed(2))

    def perturb(copies):
        # captum repeats every image as often as there are draws, one after another.
        chosen = fields.repeat(len(copies) // 7, 1, 1)[:, None]
        return chosen.double(), perturbation.apply(copies, chosen[:, 0], torch.zeros_like(copies))

    expected = captums(
        model,
        perturb,
        images,
        maps[:, None],
        target=[0, 1, 2],
        n_perturb_samples=7,
        normalize=scaled,
    )
    found = infidelity(
        model, images, maps, [0, 1, 2], perturbation=perturbation, draws=7, scaled=scaled, seed=2
    )
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-6)


def test_squares_lie_anywhere_inside():
    fields = RemovedSquare(3).draw(500, 5, 4, torch.Generator().manual_seed(0))
    assert (fields.sum((1, 2)) == 9).all()
    assert len(fields.flatten(1).unique(dim=0)) == 3 * 2


def test_noise_is_normal():
    noise = GaussianNoise(0.3).draw(100, 20, 20, torch.Generator().manual_seed(0))
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.std()) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (sensitivity_n, {"n": 16}, "n: expected fewer than the 16 pixels"),
        (sensitivity_n, {"n": 0}, "n: expected at least 1, got 0"),
        (sensitivity_n, {"n": 3, "subsets": 1}, "subsets: expected at least 2, got 1"),
        (infidelity, {"perturbation": RemovedSquare(5)}, "side: expected at most 4"),
        (infidelity, {"perturbation": GaussianNoise(0)}, "std: expected a positive number, got 0"),
        (infidelity, {"draws": 0}, "draws: expected at least 1, got 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_the_model_runs(function, options, message):
    model = linear_model()
    model.register_forward_hook(lambda *_: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match=message):
        function(model, IMAGES, torch.zeros(3, 4, 4), **options)


def test_correlation_is_defined_for_constants_and_for_any_scale():
    values = seeded(9)
    for length in range(2, 10):
        for constant in (-0.1, 0.1):
            assert (
                float(correlation(torch.full_like(values[:length], constant), values[:length])) == 0
            )
    for scale in (1e-300, 1e300):
        assert float(correlation(scale * values, 5 - values)) == pytest.approx(-1)
