"""Metrics of maps in two processes: the mean over all images, whoever saw them."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
from torch import distributed, multiprocessing

import camfuse
from camfuse import metrics
from faithful import seeded, small_net, unit_maps

MODEL, MAPS = small_net(), unit_maps(5, 8, 8)
IMAGES = seeded(5, 3, 8, 8, seed=2, dtype=torch.float32)
SHARES = [slice(0, 3), slice(3, 5)]  # unequal, so that a mean of means would be another number


def explain(images, target):
    return camfuse.cam(MODEL, images, "2", target=target)


def made():
    """Each metric, not yet updated."""
    return {
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


def computed(share):
    """What each metric computes in this process, from some of the images."""
    batch = {"model": MODEL, "inputs": IMAGES[share], "maps": MAPS[share]}
    found = {}
    for name, metric in made().items():
        metric.update(**metric._filter_kwargs(**batch))
        found[name] = float(metric.compute())
    return found


def computed_together(rank, folder):
    """What each metric computes in one of the processes, from its share of the images."""
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=len(SHARES),
        timeout=timedelta(minutes=1),
    )
    try:
        found = computed(SHARES[rank])
    finally:
        distributed.destroy_process_group()
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    # This process is one of them: the other one takes seconds to start.
    folder = tmp_path_factory.mktemp("processes")
    other = multiprocessing.get_context("spawn").Process(
        target=computed_together, args=(1, str(folder)), daemon=True
    )
    other.start()
    computed_together(0, str(folder))
    other.join(60)
    return [torch.load(folder / f"{rank}.pt") for rank in range(len(SHARES))]


@pytest.fixture(scope="module")
def of_one_process():
    return computed(slice(None))


@pytest.mark.parametrize("name", made())
def test_two_processes_compute_what_one_does(of_two_processes, of_one_process, name):
    assert [found[name] for found in of_two_processes] == pytest.approx(
        [of_one_process[name]] * 2, rel=1e-5
    )
