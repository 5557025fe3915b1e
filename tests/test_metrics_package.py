"""``camfuse.metrics`` as a package: its names, and what it does without."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest
import torch

pytest.importorskip("torchmetrics")

import camfuse
from camfuse import metrics


def test_it_tells_its_names_and_no_others():
    assert {*metrics.__all__} == {*metrics._HOME} <= {*dir(metrics)}
    assert all(getattr(metrics, name).__doc__ for name in metrics.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = metrics.nothing


def test_functions_win_over_the_modules_of_their_names():
    for module in metrics._NAMES:
        importlib.import_module(f"camfuse.metrics.{module}")
    assert "road" in metrics._NAMES
    assert not any(isinstance(getattr(metrics, name), ModuleType) for name in metrics.__all__)


@pytest.fixture
def without_torchmetrics(monkeypatch):
    for name in [one for one in sys.modules if one.startswith("camfuse.metrics")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.setattr(camfuse, "metrics", metrics)


@pytest.mark.usefixtures("without_torchmetrics")
def test_functions_do_without_torchmetrics_and_metrics_say_how_to_get_it():
    from camfuse.metrics import complexity

    assert complexity(torch.ones(1, 2, 2)).tolist() == [1]
    for name in ("Complexity", "MaskIoU", "PxAP"):
        with pytest.raises(ImportError, match=r"pip install 'camfuse\[metrics\]'"):
            getattr(sys.modules["camfuse.metrics"], name)
