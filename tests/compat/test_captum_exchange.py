"""Where captum is installed, camfuse's LayerGradCam takes the place of captum's inside it."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

pytest.importorskip("captum")

import captum.attr
from captum.attr._core import guided_grad_cam
from captum.attr._core.layer import grad_cam

from camfuse import compat
from camfuse.compat.captum import LayerGradCam

PLACES = (captum.attr, grad_cam, guided_grad_cam)
THEIRS = grad_cam.LayerGradCam


@pytest.fixture
def exchanged():
    """Names that were taken from captum stay what they were, so a warning is due here."""
    with pytest.warns(UserWarning, match="captum: imported before"):
        compat.install("captum")
    yield
    compat.uninstall("captum")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    ).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def assert_same(found, expected):
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max() > 0


def run(code):
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_it_is_exchanged_wherever_captum_has_it(exchanged):
    for place in PLACES:
        assert issubclass(place.LayerGradCam, LayerGradCam)
    assert captum.attr.IntegratedGradients.__module__.startswith("captum.")


def test_captum_has_its_own_again_afterwards():
    with pytest.warns(UserWarning, match="captum: imported before"):
        compat.install("captum")
    assert all(place.LayerGradCam is not THEIRS for place in PLACES)
    compat.uninstall("captum")
    assert all(place.LayerGradCam is THEIRS for place in PLACES)


def test_it_is_of_the_kind_that_captum_s_is(exchanged, net):
    method = captum.attr.LayerGradCam(net, net[2])
    assert isinstance(method, captum.attr.LayerAttribution)
    assert isinstance(method, captum.attr.GradientAttribution)
    assert captum.attr.NoiseTunnel(method).is_gradient_method
    assert isinstance(pickle.loads(pickle.dumps(method)), captum.attr.LayerGradCam)


def test_it_stays_when_captum_is_imported_again(exchanged):
    module = importlib.reload(captum.attr)
    assert issubclass(module.LayerGradCam, LayerGradCam)
    assert type(module.__loader__) is type(grad_cam.__loader__)
    assert module.__spec__.loader is module.__loader__


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("of_input", [True, False])
def test_guided_grad_cam_is_the_same(request, net, images, layer, of_input):
    def guided():
        method = captum.attr.GuidedGradCam(net, net[layer])
        return type(method.grad_cam), method.attribute(images, 1, None, "bilinear", of_input)

    theirs, expected = guided()
    request.getfixturevalue("exchanged")
    ours, found = guided()
    assert (theirs, issubclass(ours, LayerGradCam)) == (THEIRS, True)
    assert_same(found, expected)


def test_noise_tunnels_are_the_same(request, net, images):
    def smoothed():
        torch.manual_seed(2)
        tunnel = captum.attr.NoiseTunnel(captum.attr.LayerGradCam(net, net[2]))
        return tunnel.attribute(images, nt_samples=4, nt_samples_batch_size=3, target=[0, 3])

    expected = smoothed()
    request.getfixturevalue("exchanged")
    found = smoothed()
    assert_same(found, expected)


def test_captum_is_met_when_it_is_imported():
    found = run("""
        import sys, warnings
        from camfuse import compat
        with warnings.catch_warnings(action="error"):
            compat.install("captum")
        print("captum" in sys.modules, "torch" in sys.modules)
        import captum.attr._core.layer.grad_cam as module
        import captum.attr
        print(captum.attr.LayerGradCam.__module__, module.LayerGradCam is captum.attr.LayerGradCam)
        print(captum.attr._core.guided_grad_cam.LayerGradCam is captum.attr.LayerGradCam)
        print(captum.attr.__loader__ is captum.attr.__spec__.loader, captum.attr.__spec__.name)
        print(type(captum.attr.__loader__).__name__)
        compat.uninstall()
        print(captum.attr.LayerGradCam.__module__)
    """)
    assert found == [
        *("False", "False", "camfuse.compat.captum.among_captum", "True", "True"),
        *("True", "captum.attr", "SourceFileLoader", "captum.attr._core.layer.grad_cam"),
    ]


def test_captum_is_untouched_if_it_is_imported_too_late():
    found = run("""
        from camfuse import compat
        compat.install("captum")
        compat.uninstall("captum")
        from captum.attr import LayerGradCam
        print(LayerGradCam.__module__)
    """)
    assert found == ["captum.attr._core.layer.grad_cam"]


def test_the_face_stands_alone_where_captum_is_not_installed():
    found = run("""
        import sys
        sys.modules["captum"] = None
        from camfuse import compat
        compat.install("captum")
        from captum.attr import LayerAttribution, LayerGradCam
        from captum.attr._core.layer.grad_cam import LayerGradCam as again
        from captum.attr._utils.attribution import LayerAttribution as base
        import captum
        print(captum.__name__, LayerGradCam is again, LayerAttribution is base)
        try:
            import captum.insights
        except ModuleNotFoundError as error:
            print(str(error).replace(" ", "_"))
        compat.uninstall()
        print(sys.modules["captum"], [name for name in sys.modules if name.startswith("captum")])
    """)
    assert found == [
        *("camfuse.compat.captum", "True", "True"),
        "camfuse's_face_of_captum_has_no_'captum.insights'",
        *("None", "['captum']"),
    ]


def test_quantus_explains_with_it():
    pytest.importorskip("quantus")
    found = run("""
        import warnings
        warnings.simplefilter("ignore")
        import numpy as np, torch
        from torch import nn
        from camfuse import compat

        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
        x, y = torch.rand(2, 3, 8, 8), torch.tensor([1, 3])
        compat.install("captum")
        import quantus
        from quantus.functions import explanation_func
        print(explanation_func.LayerGradCam.__module__)
        asked = {"method": "LayerGradCam", "gc_layer": "model[0]", "interpolate": (8, 8)}
        found = quantus.explain(net, x.numpy(), y.numpy(), **asked)
        compat.uninstall()
        from captum.attr import LayerGradCam
        print(LayerGradCam.__module__)
        cams = LayerGradCam(net, net[0]).attribute(x, y).detach()
        expected = LayerGradCam.interpolate(cams, (8, 8)).numpy()
        print(np.abs(found - expected).max() < 1e-6 * np.abs(expected).max())
    """)
    ours = "camfuse.compat.captum.among_captum"
    assert found == [ours, "captum.attr._core.layer.grad_cam", "True"]
