"""Why a model predicts what it does for one image, and what else it should have predicted."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import camfuse
from camfuse.compat.torchcam.methods import GradCAM
from camfuse.compat.torchcam.methods._utils import untouched
from camfuse.compat.torchcam.methods.core import _CAM, TargetLayer
from camfuse.compat.torchcam.utils import overlay_mask
from camfuse.preserve import kept_gradients

__all__ = ["PredictionExplanation", "explain"]


@dataclass(frozen=True)
class PredictionExplanation:
    """What a model predicts for an image, and maps of it.

    Attributes:
        logits: ``[1, classes]``, on the CPU.
        predicted_class_idx: The class of the highest.
        expected_class_idx: The class that was expected.
        cams: The maps ``[h, w]`` of each class's target layers, f32 on the CPU.
        method: The extractor's name.
        target_layers: Names of its layers.
        model: The model's class.
        input_shape: Of the input.
        versions: Of Python, torch and camfuse.
        class_names: Of all classes.
    """

    logits: Tensor
    predicted_class_idx: int
    expected_class_idx: int | None
    cams: Mapping[int, tuple[Tensor, ...]]
    method: str
    target_layers: tuple[str, ...]
    model: str
    input_shape: tuple[int, ...]
    versions: Mapping[str, str]
    class_names: tuple[str, ...] | None = None

    def save(self, directory: str | Path, image: Image.Image, alpha: float = 0.5) -> Path:
        """Writes maps, their pictures and ``manifest.json`` to a new folder.

        Args:
            directory: The folder; it is removed again if something fails.
            image: The photograph.
            alpha: How much of it is seen below the maps.

        Returns:
            The folder.

        Raises:
            FileExistsError: If it exists.
            TypeError: If ``image`` is no PIL image.
        """
        if not isinstance(image, Image.Image):
            raise TypeError(f"image: expected a PIL image, got {type(image).__name__}")
        folder = Path(directory)
        if folder.exists():
            raise FileExistsError(f"directory: expected a new one, {folder} exists")
        folder.mkdir(parents=True)
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, folder)
            probabilities = self.logits.softmax(1)[0]
            classes = {
                str(one): {
                    **self._reference(one),
                    "logit": float(self.logits[0, one]),
                    "probability": float(probabilities[one]),
                    "artifacts": self._save_maps(folder, one, image, alpha),
                }
                for one in sorted(self.cams)
            }
            expected = self.expected_class_idx
            manifest = {
                "schema_version": 1,
                "prediction": self._reference(self.predicted_class_idx),
                "expected": None if expected is None else self._reference(expected),
                "classes": classes,
                "method": self.method,
                "target_layers": self.target_layers,
                "model": self.model,
                "input_shape": self.input_shape,
                "versions": dict(self.versions),
                "image_size": image.size,
                "alpha": alpha,
            }
            text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False)
            (folder / "manifest.json").write_text(f"{text}\n", encoding="utf-8")
            stack.pop_all()
        return folder

    def _save_maps(
        self, folder: Path, class_idx: int, image: Image.Image, alpha: float
    ) -> list[dict[str, Any]]:
        maps = self.cams[class_idx]
        # One map may be of several layers.
        layers = [self.target_layers] if len(maps) == 1 else [(one,) for one in self.target_layers]
        artifacts = []
        for i, (names, cam) in enumerate(zip(layers, maps, strict=True)):
            stem = f"class-{class_idx}-layer-{i}"
            files = {
                "map": f"{stem}.npy",
                "heatmap": f"{stem}-heatmap.png",
                "overlay": f"{stem}-overlay.png",
            }
            array = cam.numpy()
            np.save(folder / files["map"], array, allow_pickle=False)
            gray = (255 * array.clip(0, 1)).round().astype(np.uint8)
            Image.fromarray(gray).save(folder / files["heatmap"])
            overlay = overlay_mask(image, Image.fromarray(array), alpha=alpha)
            overlay.save(folder / files["overlay"])
            artifacts.append({"target_layers": list(names), **files})
        return artifacts

    def _reference(self, class_idx: int) -> dict[str, int | str | None]:
        name = None if self.class_names is None else self.class_names[class_idx]
        return {"class_idx": class_idx, "class_name": name}


def explain(
    model: nn.Module,
    input_tensor: Tensor,
    *,
    expected_class_idx: int | None = None,
    class_names: Sequence[str] | None = None,
    method: type[_CAM] = GradCAM,
    target_layer: TargetLayer = None,
    method_kwargs: Mapping[str, Any] | None = None,
) -> PredictionExplanation:
    """Maps of the predicted class of an image, and of the one that was expected.

    Args:
        model: In eval mode, from an image to ``[1, classes]``; it is left as it was.
        input_tensor: ``[1, C, H, W]``.
        expected_class_idx: The class that was expected.
        class_names: Of all classes.
        method: The extractor.
        target_layer: As for the extractor.
        method_kwargs: Further arguments for the extractor.

    Raises:
        RuntimeError: If called under ``torch.inference_mode()``.
        TypeError: If an argument, or what the model returns, is of the wrong type.
        ValueError: If one does not fit, or the model returns what is not finite.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("explain: expected gradients, got torch.inference_mode()")
    _check(model, input_tensor, expected_class_idx, method, method_kwargs)
    kwargs = dict(method_kwargs or {})
    if "target_layer" in kwargs:
        raise ValueError("method_kwargs: expected no target_layer, which has an argument")
    if target_layer is not None:
        kwargs["target_layer"] = target_layer
    elif method is GradCAM:
        kwargs.setdefault("input_shape", tuple(input_tensor.shape[1:]))

    with torch.enable_grad(), kept_gradients(model), method(model, **kwargs) as extractor:
        logits = _logits(model, input_tensor)
        predicted = int(logits[0].argmax())
        names = _check_classes(expected_class_idx, class_names, logits.shape[1])
        cams = {predicted: _maps(extractor(predicted, logits))}
        if expected_class_idx is not None and expected_class_idx != predicted:
            again = _logits(model, input_tensor)
            if again.shape != logits.shape:
                raise ValueError(
                    f"model: expected {tuple(logits.shape)} again, got {tuple(again.shape)}"
                )
            cams[expected_class_idx] = _maps(extractor(expected_class_idx, again))
        return PredictionExplanation(
            logits=logits.detach().cpu(),
            predicted_class_idx=predicted,
            expected_class_idx=expected_class_idx,
            cams=MappingProxyType(cams),
            method=method.__name__,
            target_layers=tuple(extractor.target_names),
            model=f"{type(model).__module__}.{type(model).__qualname__}",
            input_shape=tuple(input_tensor.shape),
            versions=MappingProxyType(
                {
                    "python": platform.python_version(),
                    "torch": str(torch.__version__),
                    "camfuse": camfuse.__version__,
                }
            ),
            class_names=names,
        )


def _check(model: Any, x: Any, expected: Any, method: Any, method_kwargs: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if any(module.training for module in model.modules()):
        raise ValueError("model: expected it in eval mode; call model.eval()")
    if not isinstance(x, Tensor):
        raise TypeError(f"input_tensor: expected a tensor, got {type(x).__name__}")
    if x.ndim != 4 or len(x) != 1 or not x.is_floating_point():
        raise ValueError(
            f"input_tensor: expected a floating [1, C, H, W], got {x.dtype} {tuple(x.shape)}"
        )
    if expected is not None and type(expected) is not int:
        raise TypeError(f"expected_class_idx: expected an integer, got {expected!r}")
    if not isinstance(method, type) or not issubclass(method, _CAM):
        raise TypeError(f"method: expected an extractor's class, got {method!r}")
    if method_kwargs is not None and not isinstance(method_kwargs, Mapping):
        raise TypeError(f"method_kwargs: expected a mapping, got {type(method_kwargs).__name__}")


def _check_classes(
    expected: int | None, names: Sequence[str] | None, count: int
) -> tuple[str, ...] | None:
    if expected is not None and not 0 <= expected < count:
        raise ValueError(f"expected_class_idx: expected a class below {count}, got {expected}")
    if names is None:
        return None
    if isinstance(names, str) or len(names) != count:
        raise ValueError(f"class_names: expected {count} names, got {len(names)}")
    if not all(isinstance(one, str) for one in names):
        raise TypeError("class_names: expected strings")
    return tuple(names)


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    with untouched(model):
        output = model(x)
    if not isinstance(output, Tensor):
        raise TypeError(f"model: expected it to return a tensor, got {type(output).__name__}")
    if output.ndim != 2 or len(output) != 1 or not output.shape[1]:
        raise ValueError(f"model: expected it to return [1, classes], got {tuple(output.shape)}")
    if not output.isfinite().all():
        raise ValueError("model: expected finite logits, got some that are not")
    return output


def _maps(cams: list[Tensor]) -> tuple[Tensor, ...]:
    if not cams:
        raise ValueError("method: expected at least one map, got none")
    for cam in cams:
        if not isinstance(cam, Tensor) or cam.ndim != 3 or len(cam) != 1:
            raise ValueError("method: expected maps [1, h, w]")
        if not cam.isfinite().all():
            raise ValueError("method: expected a finite map, got one that is not")
    return tuple(cam[0].detach().to("cpu", torch.float32).contiguous() for cam in cams)
