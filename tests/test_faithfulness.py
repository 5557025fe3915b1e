"""What all metrics of faithfulness have in common, and their means over a data set."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch.nn import functional as F

import camfuse
from camfuse import metrics
from faithful import seeded, small_net, unit_maps

IMAGES = seeded(5, 3, 8, 8, seed=2, dtype=torch.float32)
MAPS = unit_maps(5, 8, 8)
MODEL = small_net()


def explain(images, target):
    return camfuse.cam(MODEL, images, "2", target=target)


FUNCTIONS = {
    "deletion": partial(metrics.deletion_auc, steps=3),
    "insertion": partial(metrics.insertion_auc, steps=3),
    "drop": metrics.confidence_drop,
    "increase": metrics.confidence_increase,
    "gain": metrics.confidence_gain,
    "sensitivity_n": partial(metrics.sensitivity_n, n=9, subsets=4),
    "infidelity": partial(metrics.infidelity, draws=4),
    "coherency": partial(metrics.coherency, explain=explain),
    "adcc": partial(metrics.adcc, explain=explain),
}
METRICS = {
    "deletion": metrics.Deletion(steps=3),
    "insertion": metrics.Insertion(steps=3),
    "drop": metrics.AverageDrop(),
    "increase": metrics.IncreaseInConfidence(),
    "gain": metrics.AverageGain(),
    "sensitivity_n": metrics.SensitivityN(n=9, subsets=4),
    "infidelity": metrics.Infidelity(draws=4),
    "coherency": metrics.Coherency(explain),
    "adcc": metrics.ADCC(explain),
    "complexity": metrics.Complexity(),
    "entropy": metrics.Entropy(),
}
BETTER = {
    False: {"deletion", "drop", "infidelity", "complexity", "entropy"},
    True: {"insertion", "increase", "gain", "sensitivity_n", "coherency", "adcc"},
}
each = pytest.mark.parametrize("name", FUNCTIONS)


@each
def test_an_image_scores_the_same_wherever_it_is_in_a_batch(name):
    found = FUNCTIONS[name](MODEL, IMAGES, MAPS)
    order = [3, 0, 4]
    again = FUNCTIONS[name](MODEL, IMAGES[order], MAPS[order], batch_size=2)
    assert found.shape == (5,)
    assert found.dtype == torch.float64
    torch.testing.assert_close(again, found[order], atol=1e-6, rtol=1e-5)


@each
def test_small_maps_are_laid_over_the_image_as_they_are_displayed(name):
    small = unit_maps(5, 3, 2)
    shown = F.interpolate(small[:, None], (8, 8), mode="bilinear")[:, 0]
    expected = FUNCTIONS[name](MODEL, IMAGES, shown)
    torch.testing.assert_close(FUNCTIONS[name](MODEL, IMAGES, small), expected)


@each
def test_a_map_of_zeros_has_a_number(name):
    assert FUNCTIONS[name](MODEL, IMAGES, torch.zeros(5, 8, 8)).isfinite().all()


@each
def test_nothing_is_left_on_a_graph_nor_drawn_from_the_global_generator(name):
    state = torch.get_rng_state()
    images = IMAGES.clone().requires_grad_()
    assert not FUNCTIONS[name](MODEL, images, MAPS.clone().requires_grad_()).requires_grad
    assert images.grad is None
    assert all(one.grad is None for one in MODEL.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_the_mean_over_images_not_over_batches(name):
    metric = METRICS[name].clone()
    for part in (slice(0, 3), slice(3, 5)):
        batch = {"model": MODEL, "images": IMAGES[part], "maps": MAPS[part]}
        metric.update(**metric._filter_kwargs(**batch))
    of = FUNCTIONS.get(name, lambda *_: getattr(metrics, name)(MAPS))
    torch.testing.assert_close(metric.compute(), of(MODEL, IMAGES, MAPS).mean(), atol=1e-6, rtol=0)
    assert metric.higher_is_better == (name in BETTER[True])
    assert name in BETTER[metric.higher_is_better]
    metric.reset()
    assert int(metric.images) == 0


def test_metrics_of_the_masked_image_share_its_passes_in_a_collection():
    from torchmetrics import MetricCollection

    names = ("drop", "increase", "gain", "complexity")
    collection = MetricCollection({name: METRICS[name].clone() for name in names})
    batch = {"model": MODEL, "images": IMAGES, "maps": MAPS}
    collection.update(**batch)
    assert sorted(map(sorted, collection.compute_groups.values())) == [
        ["complexity"],
        ["drop", "gain", "increase"],
    ]
    collection.update(**batch)
    found = collection.compute()
    for name in names[:3]:
        assert float(found[name]) == pytest.approx(
            float(FUNCTIONS[name](MODEL, IMAGES, MAPS).mean())
        )


def test_metrics_with_other_options_stay_apart_when_their_sums_are_equal():
    from torchmetrics import MetricCollection

    collection = MetricCollection(
        {str(seed): metrics.Deletion(steps=3, seed=seed) for seed in range(2)}
    )
    ties = torch.zeros(5, 8, 8)
    for maps in (MAPS, ties):  # without ties the seed does not matter
        collection.update(model=MODEL, images=IMAGES, maps=maps)
    found = collection.compute()
    assert found["0"] != found["1"]


def test_other_metrics_stay_apart_when_their_sums_are_equal():
    from torchmetrics import MetricCollection

    collection = MetricCollection([metrics.Complexity(), metrics.Entropy()])
    for maps in (torch.zeros(1, 1, 1), torch.ones(1, 2, 2)):  # the first is 0 to both
        collection.update(maps=maps)
    found = collection.compute()
    assert float(found["Complexity"]) == 0.5
    assert float(found["Entropy"]) == pytest.approx(math.log(4) / 2)
