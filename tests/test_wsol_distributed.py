"""What two processes have seen counts as if one had seen it all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

pytest.importorskip("cv2")
pytest.importorskip("torchmetrics")

from torchmetrics import Metric, MetricCollection

from camfuse import metrics

COUNT = 5  # the second process sees fewer


def masked() -> dict[str, Metric]:
    """Metrics of maps and masks."""
    return {
        "energy": metrics.EnergyPointingGame(),
        "pointing": metrics.PointingGame(tolerance=2),
        "difference": metrics.InsideOutside(),
        "heat ratio": metrics.EffectiveHeatRatio(),
        "iou": metrics.MaskIoU(),
        "dice": metrics.MaskDice(),
        "best iou": metrics.BestMaskIoU(),
        "best dice of each": metrics.BestMaskDice(per_image=True),
        "precision": metrics.PxAP(step=0.1),
    }


def boxed() -> dict[str, Metric]:
    """Metrics of maps and boxes."""
    options = {"size": None, "step": 0.1}
    return {
        "one box": metrics.MaxBoxAcc(**options),
        "all boxes": metrics.MaxBoxAccV2(**options),
        "first": metrics.TopLocalization(1, **options),
        "first five": metrics.TopLocalization(5, **options),
    }


def seen(part: slice) -> dict[str, Tensor]:
    """What all metrics say of some of the images."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(COUNT, 12, 12, generator=generator)
    masks = torch.rand(COUNT, 12, 12, generator=generator) > 0.6
    boxes = [torch.tensor([[i, i, 8, 8 + i // 2]]) for i in range(COUNT)]
    logits, labels = torch.rand(COUNT, 9, generator=generator), torch.arange(COUNT)
    of_masks = MetricCollection(masked())
    of_boxes = MetricCollection(boxed())
    of_masks.update(maps[part], masks[part])
    of_boxes.update(maps[part], boxes[part], logits[part], labels[part])
    return {**of_masks.compute(), **of_boxes.compute()}


def process(rank: int, meeting: str, results: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    torch.save(seen(slice(0, 3) if rank == 0 else slice(3, COUNT)), f"{results}{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_add_up_to_one(tmp_path):
    meeting, results = f"file://{tmp_path}/meeting", f"{tmp_path}/result"
    # Forked, they need not import everything again.
    start = multiprocessing.start_processes
    start(process, (meeting, results), nprocs=2, start_method="fork")
    whole = seen(slice(0, COUNT))
    assert whole.keys() == {*masked(), *boxed()}
    assert whole != seen(slice(0, 3))
    for rank in range(2):
        torch.testing.assert_close(torch.load(f"{results}{rank}.pt"), whole)
