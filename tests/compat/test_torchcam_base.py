"""The base class: what subclasses define keeps its meaning, and what does not fit is refused."""

from __future__ import annotations

import functools
import importlib
import inspect

import pytest
import torch
import torchcam
import torchcam.methods as theirs
import torchcam.methods.core
import torchcam.methods.gradient
from torch import nn
from torch.testing import assert_close
from torchcam_models import call, images, net

import camfuse.compat.torchcam as face
import camfuse.compat.torchcam.methods as ours

MODULES = [
    "torchcam",
    "torchcam.methods",
    "torchcam.methods.core",
    "torchcam.methods.gradient",
    "torchcam.methods.activation",
    "torchcam.metrics",
    "torchcam.utils",
    "torchcam.explain",
]


def public(name):
    module = importlib.import_module(name)
    own = {n for n, one in vars(module).items() if getattr(one, "__module__", "") == name}
    return {n for n in own | set(getattr(module, "__all__", ())) if n != "version"} - {
        n for n in own if n.startswith("_") and n not in ("_CAM", "_GradCAM")
    }


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_there(name):
    module = importlib.import_module(f"camfuse.compat.{name}")
    for one in sorted(public(name)):
        if one not in ("logger", "_CAMWrapper"):
            assert hasattr(module, one), one


def test_the_version_is_that_of_the_interface():
    assert face.__version__ == torchcam.__version__
    with pytest.raises(AttributeError, match="nothing"):
        face.nothing  # noqa: B018


@pytest.mark.parametrize("name", [one for one in ours.__all__ if one != "OutputTarget"])
@pytest.mark.parametrize("method", ["__init__", "__call__", "fuse_cams", "compute_cams"])
def test_calls_take_the_same_arguments(name, method):
    def arguments(side):
        function = getattr(getattr(side, name), method)
        for one in inspect.signature(function).parameters.values():
            default = one.default
            known = inspect.isclass(default) and default is not one.empty
            yield one.name, one.kind, default.__name__ if known else default

    assert list(arguments(ours)) == list(arguments(theirs))


class Weights:
    def _get_weights(self, class_idx, scores, **kwargs):
        self._backprop(scores, class_idx, **kwargs)
        return [
            -A.mean((2, 3)) * G.amax((2, 3)) for A, G in zip(self.hook_a, self.hook_g, strict=True)
        ]


class Unrectified:
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._relu = False


class Normalized:
    @staticmethod
    def _normalize(cams, spatial_dims=None, eps=1e-8):
        return cams * 3 + 1


class Halved:
    def compute_cams(self, *args, **kwargs):
        return [one / 2 for one in super().compute_cams(*args, **kwargs)]


class Undefined:
    def _get_weights(self, class_idx, scores, **kwargs):
        self._backprop(scores, class_idx, **kwargs)
        weights = [G.mean((2, 3)) for G in self.hook_g]
        weights[0][:, 0] = torch.nan
        return weights


@pytest.mark.parametrize("mixin", [Weights, Unrectified, Normalized, Halved, Undefined])
@pytest.mark.parametrize("base", ["GradCAM", "LayerCAM"])
def test_what_a_subclass_defines_keeps_its_meaning(mixin, base):
    found = []
    for side in (ours, theirs):
        kind = type("Own", (mixin, getattr(side, base)), {})
        found.append(call(kind, net(), ["second", "last"], images(), [1, 2])[0])
    assert_close(*found, rtol=1e-4, atol=1e-5)


def test_what_is_put_on_the_object_keeps_its_meaning_too():
    model, x = net(), images()
    with ours.GradCAM(model, "last") as extractor:
        extractor._get_weights = lambda class_idx, scores: [torch.ones(2, 8)]
        (found,) = extractor(1, model(x), normalized=False)
        assert_close(found, extractor.hook_a[0].sum(1))


def test_what_wraps_a_hook_on_the_object_is_called():
    model, x, seen = net(), images(), []
    with ours.GradCAM(model, "last") as extractor:
        original = extractor._get_weights

        @functools.wraps(original)
        def spy(*args, **kwargs):
            seen.append(args)
            return original(*args, **kwargs)

        extractor._get_weights = spy
        extractor(1, model(x))
    assert len(seen) == 1


def test_fusion_of_a_subclass_keeps_its_meaning():
    for side in (ours, theirs):

        class Summed(side.GradCAM):
            @staticmethod
            def _scale_cams(cams):
                return [one + 1 for one in cams]

            @staticmethod
            def _fuse_cams(cams, target_shape):
                return sum(one.sum() for one in cams) * target_shape[0]

        maps = [torch.ones(1, 2, 2), torch.ones(1, 4, 4)]
        assert float(Summed.fuse_cams(maps)) == 160


def test_a_subclass_may_differentiate_as_far_as_it_likes():
    class Through(ours.GradCAM):
        def _get_weights(self, class_idx, scores, **kwargs):
            scores[:, class_idx].sum().backward()
            return [torch.ones(2, 8)]

    model = net()
    call(Through, model, "last", images(), 1)
    assert model.first.weight.grad is not None


def test_a_subclass_of_the_base_class_alone_needs_weights_only():
    found = []
    for side in (ours, theirs):

        class Mean(importlib.import_module(f"{side.__name__}.core")._CAM):
            def _get_weights(self, class_idx, *args, **kwargs):
                return [A.mean((2, 3)) for A in self.hook_a]

        found.append(call(Mean, net(), "second", images(), 1)[0])
    assert_close(*found, rtol=1e-5, atol=1e-6)


def test_a_subclass_may_hook_what_it_likes():
    class Doubled(ours.CAM):
        def _hook_a(self, module, args, output, idx=0):
            self.hook_a[idx] = 2 * output.detach()

    expected = call(ours.CAM, net(), "last", images(), 1, normalized=False)[0]
    found = call(Doubled, net(), "last", images(), 1, normalized=False)[0]
    assert_close(found[0], 2 * expected[0])


def error_of(action):
    try:
        action()
    except Exception as error:
        return type(error)
    return None


CONSTRUCTIONS = {
    "unknown name": lambda m, net: m.GradCAM(net, "lost"),
    "number": lambda m, net: m.GradCAM(net, 3),
    "list of numbers": lambda m, net: m.GradCAM(net, [3]),
    "foreign module": lambda m, net: m.GradCAM(net, nn.ReLU()),
    "no positions": lambda m, net: m.GradCAM(nn.Sequential(nn.Conv2d(3, 3, 4)), None, (3, 4, 4)),
    "reshape alone": lambda m, net: m.GradCAM(net, reshape_transform=lambda x: x),
    "no function": lambda m, net: m.GradCAM(net, "last", reshape_transform=3),
    "cam of two": lambda m, net: m.CAM(net, ["second", "last"]),
    "cam without linear": lambda m, net: m.CAM(nn.Sequential(nn.ReLU()), "0"),
    "cam of two linear": lambda m, net: m.CAM(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "0"),
    "cam of a number": lambda m, net: m.CAM(net, "last", 3),
    "refine one": lambda m, net: m.RefineCAM(net, ["last"]),
    "refine a name": lambda m, net: m.RefineCAM(net, "last"),
    "refine by what": lambda m, net: m.RefineCAM(net, ["last", "second"], base_method=nn.ReLU),
    "finer by score": lambda m, net: m.FinerCAM(net, "last", base_method=m.ScoreCAM),
    "finer gamma": lambda m, net: m.FinerCAM(net, "last", gamma="1"),
    "finer negative": lambda m, net: m.FinerCAM(net, "last", gamma=-1),
    "finer count": lambda m, net: m.FinerCAM(net, "last", num_references=1.5),
    "finer none": lambda m, net: m.FinerCAM(net, "last", num_references=0),
    "legrad none": lambda m, net: m.LeGrad(net, None),
    "legrad no vit": lambda m, net: m.LeGrad(net, "last"),
    "legrad prefix": lambda m, net: m.LeGrad(net, "last", prefix_tokens=-1),
    "legrad prefix type": lambda m, net: m.LeGrad(net, "last", prefix_tokens="1"),
    "legrad grid": lambda m, net: m.LeGrad(net, "last", grid_shape=(0, 1)),
    "legrad grid type": lambda m, net: m.LeGrad(net, "last", grid_shape=[1, 1]),
    "legrad head": lambda m, net: m.LeGrad(net, "last", score_projection=3),
    "no maps": lambda m, net: m.GradCAM.fuse_cams([]),
    "maps no list": lambda m, net: m.GradCAM.fuse_cams(torch.zeros(1, 2, 2)),
    "refine no maps": lambda m, net: m.RefineCAM.fuse_cams([]),
}


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_what_cannot_be_constructed_raises_what_the_peer_raises(name):
    expected = error_of(lambda: CONSTRUCTIONS[name](theirs, net()))
    assert expected is not None
    assert error_of(lambda: CONSTRUCTIONS[name](ours, net())) is expected


CALLS = {
    "neither": lambda e, s: e(scores=s),
    "both": lambda e, s: e(1, s, targets=lambda one: one[0]),
    "negative": lambda e, s: e(-1, s),
    "negative one": lambda e, s: e([1, -1], s),
    "fraction": lambda e, s: e(1.5, s),
    "too few": lambda e, s: e([1], s),
    "no scores": lambda e, s: e(1),
    "scores of lists": lambda e, s: e(1, [s]),
    "targets no function": lambda e, s: e(scores=s, targets=3),
    "targets too few": lambda e, s: e(scores=s, targets=[lambda one: one[0]]),
    "targets no tensor": lambda e, s: e(scores=s, targets=lambda one: 3.0),
    "targets no number": lambda e, s: e(scores=s, targets=lambda one: one),
    "no batch": lambda e, s: e(scores=s.sum(), targets=lambda one: one),
    "dict": lambda e, s: e(scores={"a": s}, targets=lambda one: one),
    "elsewhere": lambda e, s: e(1, torch.zeros(2, 5, requires_grad=True)),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_cannot_be_explained_raises_what_the_peer_raises(name):
    found = []
    for side in (ours, theirs):
        model = net()
        with side.GradCAM(model, "last") as extractor:
            scores = model(images())
            found.append(error_of(lambda e=extractor, s=scores: CALLS[name](e, s)))
    assert found[0] is found[1] is not None


FINER = {
    "targets": lambda e, s: e(1, s, targets=lambda one: one[0]),
    "no scores": lambda e, s: e(1),
    "no tensor": lambda e, s: e(1, [s]),
    "one class": lambda e, s: e(0, s[:, :1]),
    "class type": lambda e, s: e("1", s),
    "class range": lambda e, s: e(9, s),
    "classes": lambda e, s: e([1], s),
    "reference range": lambda e, s: e(1, s, 9),
    "reference twice": lambda e, s: e(1, s, [2, 2]),
    "reference itself": lambda e, s: e(1, s, 1),
    "no reference": lambda e, s: e(1, s, []),
    "reference type": lambda e, s: e(1, s, "2"),
    "ragged": lambda e, s: e(1, s, [[2], [2, 3]]),
    "rows": lambda e, s: e(1, s, [[2]]),
    "empty rows": lambda e, s: e(1, s, [[], []]),
}


@pytest.mark.parametrize("name", FINER)
def test_what_cannot_be_compared_raises_what_the_peer_raises(name):
    found = []
    for side in (ours, theirs):
        model = net()
        with side.FinerCAM(model, "last") as extractor:
            scores = model(images())
            found.append(error_of(lambda e=extractor, s=scores: FINER[name](e, s)))
    assert found[0] is found[1] is not None


def test_classes_without_a_pass_are_refused():
    with (
        ours.GradCAM(net(), "last") as extractor,
        pytest.raises(AssertionError, match="forward pass through 'last'"),
    ):
        extractor(1, torch.zeros(2, 5))


@pytest.mark.parametrize(
    "make",
    [
        lambda m, net: m.GradCAM(net, ["last", net.second]),
        lambda m, net: m.SmoothGradCAMpp(net, "last"),
        lambda m, net: m.ScoreCAM(net, "last"),
        lambda m, net: m.SSCAM(net, "last"),
        lambda m, net: m.ISCAM(net, "last"),
        lambda m, net: m.RefineCAM(net, ["last", "second"]),
        lambda m, net: m.FinerCAM(net, "last"),
        lambda m, net: m.CAM(net, "last"),
    ],
)
def test_extractors_describe_themselves_as_the_peers(make):
    assert repr(make(ours, net())) == repr(make(theirs, net()))
