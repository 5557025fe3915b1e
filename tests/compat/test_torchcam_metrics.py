"""Metrics of the face of torchcam, and what ``explain`` writes, are the peer's."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
import torchcam.explain
import torchcam.methods as their_methods
import torchcam.metrics
import torchcam.utils
from PIL import Image
from torch.testing import assert_close
from torchcam_models import images, net

import camfuse.compat.torchcam.explain
import camfuse.compat.torchcam.methods as our_methods
import camfuse.compat.torchcam.metrics
import camfuse.compat.torchcam.utils

METRICS = (camfuse.compat.torchcam.metrics, torchcam.metrics)
METHODS = (our_methods, their_methods)
EXPLAIN = (camfuse.compat.torchcam.explain, torchcam.explain)
OVERLAY = (camfuse.compat.torchcam.utils.overlay_mask, torchcam.utils.overlay_mask)
softmax = partial(torch.softmax, dim=-1)


def summaries(name, updates, method="LayerCAM", **options):
    found = []
    for metrics, methods in zip(METRICS, METHODS, strict=True):
        with getattr(methods, method)(net(), ["second", "last"]) as extractor:
            metric = getattr(metrics, name)(extractor, softmax, **options)
            for update in updates:
                metric.update(images(3), **update)
            found.append({**metric.summary(), "total": metric.total, "nan": metric.nan_count})
    return found


@pytest.mark.parametrize("name", ["ClassificationMetric", "DeletionInsertionMetric"])
@pytest.mark.parametrize(
    "update",
    [
        {},
        {"class_idx": 2},
        {"class_idx": [0, 3, 1]},
        {"targets": lambda one: one[1] + one[2]},
        {"targets": [lambda one: one[0], lambda one: one[1], lambda one: one[4]]},
    ],
    ids=["highest", "class", "classes", "target", "targets"],
)
def test_summaries_are_the_peers(name, update):
    mine, other = summaries(name, [update, {}])
    assert mine == pytest.approx(other, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("method", ["GradCAM", "CAM", "ScoreCAM"])
def test_summaries_of_other_extractors_are_the_peers(method):
    for name in ("ClassificationMetric", "DeletionInsertionMetric"):
        found = []
        for metrics, methods in zip(METRICS, METHODS, strict=True):
            with getattr(methods, method)(net(), "last") as extractor:
                metric = getattr(metrics, name)(extractor)
                metric.update(images(2))
                found.append(metric.summary())
        assert found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("steps", [1, 7, 1000])
@pytest.mark.parametrize(
    "baseline", [None, torch.full((3, 1, 1), 0.5), lambda x: x.mean((2, 3), keepdim=True)]
)
def test_curves_are_the_peers_for_any_steps_and_baseline(steps, baseline):
    options = {"steps": steps, "baseline": baseline, "batch_size": 5}
    mine, other = summaries("DeletionInsertionMetric", [{}], **options)
    assert mine == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_samples_whose_maps_are_not_numbers_are_counted_apart():
    x = images(3)
    x[1] = torch.nan
    for name in ("ClassificationMetric", "DeletionInsertionMetric"):
        with our_methods.GradCAM(net(), "last") as extractor:
            metric = getattr(METRICS[0], name)(extractor, softmax)
            metric.update(x, class_idx=1)
            alone = getattr(METRICS[0], name)(extractor, softmax)
            alone.update(x[[0, 2]], class_idx=1)
            assert (metric.total, metric.nan_count) == (2, 1)
            assert metric.summary() == pytest.approx(alone.summary(), rel=1e-5)
            metric.reset()
            metric.update(x[1:2], class_idx=1)
            assert (metric.total, metric.nan_count) == (0, 1)
            with pytest.raises(AssertionError, match="before a summary"):
                metric.summary()


def test_metrics_leave_the_model_as_it_was():
    model = net().train()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    with our_methods.GradCAM(model, "last") as extractor:
        METRICS[0].DeletionInsertionMetric(extractor).update(images())
        METRICS[0].ClassificationMetric(extractor).update(images())
    assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert all(one.training for one in model.modules())
    assert all(one.requires_grad and one.grad is None for one in model.parameters())


MISTAKES = {
    "both": lambda m, e: m.ClassificationMetric(e).update(images(), 1, targets=lambda one: one[0]),
    "range": lambda m, e: m.ClassificationMetric(e).update(images(), 9),
    "type": lambda m, e: m.ClassificationMetric(e).update(images(), (1, 2)),
    "count": lambda m, e: m.ClassificationMetric(e).update(images(), [1]),
    "summary": lambda m, e: m.ClassificationMetric(e).summary(),
    "steps": lambda m, e: m.DeletionInsertionMetric(e, steps=0),
    "steps type": lambda m, e: m.DeletionInsertionMetric(e, steps=True),
    "batch_size": lambda m, e: m.DeletionInsertionMetric(e, batch_size=1.5),
    "baseline": lambda m, e: m.DeletionInsertionMetric(e, baseline=3),
    "baseline shape": lambda m, e: m.DeletionInsertionMetric(e, baseline=torch.ones(7)).update(
        images()
    ),
    "baseline result": lambda m, e: m.DeletionInsertionMetric(e, baseline=len).update(images()),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_raise_what_the_peer_raises(name):
    found = []
    for metrics, methods in zip(METRICS, METHODS, strict=True):
        with methods.GradCAM(net(), "last") as extractor, pytest.raises(Exception) as caught:  # noqa: PT011
            MISTAKES[name](metrics, extractor)
        found.append(caught.type)
    assert found[0] is found[1]


def photograph(mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "YCbCr", "HSV", "P"])
@pytest.mark.parametrize("colormap", ["jet", "viridis"])
def test_overlays_are_the_peers_byte_for_byte(mode, colormap):
    torch.manual_seed(0)
    for mask in (Image.fromarray(torch.rand(7, 7).numpy()), photograph("L").resize((5, 5))):
        for alpha in (0.0, 0.3, 0.7):
            mine, other = (one(photograph(mode), mask, colormap, alpha) for one in OVERLAY)
            assert mine.mode == other.mode
            assert mine.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    "arguments",
    [
        (np.zeros((3, 3)), photograph("L")),
        (photograph(), photograph("L"), "jet", 1),
        (photograph(), photograph("L"), "jet", 1.0),
        (photograph("CMYK"), photograph("L")),
        (photograph(), photograph("L"), "no such"),
    ],
)
def test_overlays_that_cannot_be_raise_what_the_peer_raises(arguments):
    found = []
    for overlay in OVERLAY:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            overlay(*arguments)
        found.append(caught.type)
    assert found[0] is found[1]


def explained(side, methods, **options):
    return side.explain(net(), images(1), target_layer=["second", "last"], **options)


@pytest.mark.parametrize("expected", [None, 0, 3])
@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM", "ScoreCAM"])
def test_files_of_an_explanation_are_the_peers(tmp_path, expected, method):
    names = [f"class {i}" for i in range(5)]
    for i, (side, methods) in enumerate(zip(EXPLAIN, METHODS, strict=True)):
        found = explained(
            side,
            methods,
            expected_class_idx=expected,
            class_names=names,
            method=getattr(methods, method),
        )
        found.save(tmp_path / str(i), photograph())
    mine, other = (sorted(path.name for path in (tmp_path / i).iterdir()) for i in "01")
    assert mine == other
    manifests = [json.loads((tmp_path / i / "manifest.json").read_text()) for i in "01"]
    assert manifests[0].pop("versions").keys() == {"python", "torch", "camfuse"}
    manifests[1].pop("versions")
    for one in manifests:
        for numbers in one["classes"].values():
            numbers["logit"] = pytest.approx(numbers["logit"], rel=1e-5)
            numbers["probability"] = pytest.approx(numbers["probability"], rel=1e-5)
    assert repr(manifests[0]) == repr(manifests[1])
    for name in mine:
        paths = [tmp_path / i / name for i in "01"]
        if name.endswith(".npy"):
            assert_close(*(torch.from_numpy(np.load(path)) for path in paths), rtol=0, atol=1e-5)
        elif name.endswith(".png"):
            pixels = [np.asarray(Image.open(path)).astype(int) for path in paths]
            # a map that differs in its last bit may fall into the next of 256 colors
            assert np.abs(pixels[0] - pixels[1]).max() <= 8


def test_a_folder_that_cannot_be_completed_is_removed(tmp_path):
    found = explained(EXPLAIN[0], METHODS[0])
    with pytest.raises(ValueError, match="alpha"):
        found.save(tmp_path / "new", photograph(), alpha=2.0)
    assert not (tmp_path / "new").exists()
    with pytest.raises(FileExistsError):
        found.save(tmp_path, photograph())
    with pytest.raises(TypeError, match="PIL image"):
        found.save(tmp_path / "new", None)


def test_the_layer_is_found_if_none_is_given():
    mine, other = (side.explain(net(), images(1)) for side in EXPLAIN)
    assert mine.target_layers == other.target_layers
    assert_close(mine.cams, dict(other.cams), rtol=0, atol=1e-5)


def test_gradients_that_were_there_are_kept():
    model = net()
    model(images()).sum().backward()
    before = [one.grad for one in model.parameters()]
    EXPLAIN[0].explain(model, images(1), target_layer="last", expected_class_idx=2)
    assert all(one.grad is two for one, two in zip(model.parameters(), before, strict=True))


BAD = {
    "model": lambda s, m: s.explain(3, images(1)),
    "training": lambda s, m: s.explain(net().train(), images(1)),
    "input": lambda s, m: s.explain(net(), [1]),
    "batch": lambda s, m: s.explain(net(), images(2)),
    "integers": lambda s, m: s.explain(net(), images(1).long()),
    "expected": lambda s, m: s.explain(net(), images(1), expected_class_idx=9),
    "expected type": lambda s, m: s.explain(net(), images(1), expected_class_idx="1"),
    "names": lambda s, m: s.explain(net(), images(1), class_names=["a"]),
    "names type": lambda s, m: s.explain(net(), images(1), class_names=[1, 2, 3, 4, 5]),
    "method": lambda s, m: s.explain(net(), images(1), method=m.FinerCAM),
    "kwargs": lambda s, m: s.explain(net(), images(1), method_kwargs=[1]),
    "layer twice": lambda s, m: s.explain(net(), images(1), method_kwargs={"target_layer": "last"}),
    "infinite": lambda s, m: s.explain(net(), images(1) * torch.inf, target_layer="last"),
    "list": lambda s, m: s.explain(torch.nn.Identity(), images(1), target_layer=""),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_explained_raises_what_the_peer_raises(name):
    found = []
    for side, methods in zip(EXPLAIN, METHODS, strict=True):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            BAD[name](side, methods)
        found.append(caught.type)
    assert found[0] is found[1]


def test_inference_mode_is_refused():
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode"):
        EXPLAIN[0].explain(net(), images(1))
