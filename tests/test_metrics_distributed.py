"""Metrics over a data set in two processes: both together know what one would."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

pytest.importorskip("cv2")
pytest.importorskip("torchmetrics")

from torchmetrics import Metric, MetricCollection

from camfuse import metrics
from faithful import seeded, small_net, unit_maps

COUNT = 5
SHARES = [slice(0, 3), slice(3, COUNT)]  # unequal: a mean of means would be another number
MAPS = unit_maps(COUNT, 12, 12)
IMAGES = seeded(COUNT, 3, 12, 12, seed=2, dtype=torch.float32)
MASKS = seeded(COUNT, 12, 12, seed=4) > 0.3
BOXES = [torch.tensor([[i, i, 11, 11]]) for i in range(COUNT)]
CLASSES = torch.arange(COUNT)
LOGITS = seeded(COUNT, 9)
LABELS = LOGITS.argsort(1, descending=True)[range(COUNT), [0, 2, 6, 0, 0]]


def explain(images: Tensor, _: object) -> Tensor:
    """Without gradients: a process that has used them on a GPU cannot be forked."""
    return images.mean(1)


def of_models() -> dict[str, Metric]:
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
    }


def of_maps() -> dict[str, Metric]:
    return {"complexity": metrics.Complexity(), "entropy": metrics.Entropy()}


def of_masks() -> dict[str, Metric]:
    return {
        "energy": metrics.EnergyPointingGame(),
        "pointing": metrics.PointingGame(),
        "difference": metrics.InsideOutside(),
        "heat ratio": metrics.EffectiveHeatRatio(),
        "iou": metrics.MaskIoU(),
        "dice": metrics.MaskDice(),
        "best iou": metrics.BestMaskIoU(),
        "best dice of each": metrics.BestMaskDice(per_image=True),
        "precision": metrics.PxAP(step=0.1),
    }


def of_boxes() -> dict[str, Metric]:
    options = {"size": None, "step": 0.1}
    return {
        "one box": metrics.MaxBoxAcc(**options),
        "all boxes": metrics.MaxBoxAccV2(**options),
        "first": metrics.TopLocalization(1, **options),
        "first five": metrics.TopLocalization(5, **options),
    }


def seen(part: slice) -> dict[str, float]:
    """What all metrics say of some of the images."""
    maps = MAPS[part]
    given = [
        (of_models(), (small_net(), IMAGES[part], maps, CLASSES[part])),
        (of_maps(), (maps,)),
        (of_masks(), (maps, MASKS[part])),
        (of_boxes(), (maps, BOXES[part], LOGITS[part], LABELS[part])),
    ]
    found = {}
    for several, arguments in given:
        collection = MetricCollection(several)
        collection.update(*arguments)
        found |= {name: float(value) for name, value in collection.compute().items()}
    return found


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=len(SHARES),
        timeout=timedelta(minutes=1),
    )
    torch.save(seen(SHARES[rank]), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory) -> list[dict[str, float]]:
    folder = tmp_path_factory.mktemp("processes")
    # Forked, they need not import everything again.
    start = multiprocessing.start_processes
    start(process, (str(folder),), nprocs=len(SHARES), start_method="fork")
    return [torch.load(folder / f"{rank}.pt") for rank in range(len(SHARES))]


@pytest.fixture(scope="module")
def of_one_process() -> dict[str, float]:
    return seen(slice(None))


@pytest.mark.parametrize("name", [*of_models(), *of_maps(), *of_masks(), *of_boxes()])
def test_two_processes_compute_what_one_does(of_two_processes, of_one_process, name):
    assert [found[name] for found in of_two_processes] == pytest.approx(
        [of_one_process[name]] * 2, rel=1e-5
    )


def test_neither_process_could_have_known_alone(of_one_process):
    for share in SHARES:
        found = seen(share)
        assert not [name for name in found if found[name] == pytest.approx(of_one_process[name])]
