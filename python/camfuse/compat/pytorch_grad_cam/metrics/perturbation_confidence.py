"""How the score of a target changes when a map says what is changed of the image."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from camfuse.compat.pytorch_grad_cam.arrays import Array, FloatArray, float32_of, tensor_of
from camfuse.perturbation import passes
from camfuse.preserve import evaluating

Targets = Sequence[Callable[[Any], Tensor]]
Perturbation = Callable[[Tensor, Tensor], Tensor]
Imputer = Callable[[Tensor, Tensor], Tensor]
Percentile = float | Literal["auto"]

PERCENTILES = (10, 20, 30, 40, 50, 60, 70, 80, 90)


class PerturbationConfidenceMetric:
    """The change of a target's score that a perturbation brings about.

    Args:
        perturbation: Makes an image ``[C, H, W]`` of an image and its map ``[H, W]``; all are on
            the CPU.
    """

    def __init__(self, perturbation: Perturbation) -> None:
        self.perturbation = perturbation

    def __call__(
        self,
        input_tensor: Tensor,
        cams: Array | Tensor,
        targets: Targets,
        model: Callable[[Tensor], Any],
        return_visualization: bool = False,
        return_diff: bool = True,
    ) -> Any:
        """Scores of perturbed images, less those of the images.

        The model is run in eval mode, without gradients, and is left as it was.

        Args:
            input_tensor: Images ``[B, C, H, W]``.
            cams: Their maps ``[B, H, W]``.
            targets: One per image.
            model: The model, or any function of a batch of images.
            return_visualization: Whether the perturbed images are returned, too.
            return_diff: Whether the scores of the images are taken off.

        Returns:
            ``[B]``, f32; or that and the perturbed images ``[B, C, H, W]``.

        Raises:
            ValueError: If there are not as many maps and targets as images.
        """
        for name, given in (("cams", cams), ("targets", targets)):
            if len(given) != len(input_tensor):
                raise ValueError(
                    f"{name}: expected {len(input_tensor)}, one per image, got {len(given)}"
                )
        maps = tensor_of(cams).cpu()
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))  # NumPy knows no bf16
        pairs = zip(input_tensor.detach().cpu(), maps, strict=True)
        perturbed = torch.stack([self.perturbation(*pair) for pair in pairs]).to(input_tensor)
        result = _scores(model, perturbed, targets)
        if return_diff:
            result = result - _scores(model, input_tensor, targets)
        result = self._finished(result)
        return (result, perturbed) if return_visualization else result

    def _finished(self, change: FloatArray) -> FloatArray:
        """What is said of a change."""
        return change


class RemoveMostRelevantFirst:
    """Removes what reaches a percentile of the map, and imputes it.

    Args:
        percentile: Of the map, in [0, 100]; or ``"auto"``, which removes what is above Otsu's
            threshold of a map in [0, 1].
        imputer: Makes an image ``[C, H, W]`` of an image and a mask ``[H, W]``, f32: 0 where a
            pixel is removed, 1 where it is kept.
    """

    def __init__(self, percentile: Percentile, imputer: Imputer) -> None:
        self.percentile = percentile
        self.imputer = imputer

    def __call__(self, input_tensor: Tensor, mask: Tensor) -> Tensor:
        """The image ``[C, H, W]`` without what the map ``[H, W]`` points at."""
        if self.percentile == "auto":
            levels = (mask.float().clamp(0, 1) * 255).byte()
            kept = levels <= _otsu(levels)
        else:
            kept = mask < np.percentile(mask.cpu().numpy(), self.percentile)
        return self.imputer(input_tensor, kept.float())


class RemoveLeastRelevantFirst(RemoveMostRelevantFirst):
    """The same by ``1 - map``: what is least relevant goes."""

    def __call__(self, input_tensor: Tensor, mask: Tensor) -> Tensor:
        """The image ``[C, H, W]`` without what the map ``[H, W]`` does not point at."""
        return super().__call__(input_tensor, 1 - mask)


class AveragerAcrossThresholds:
    """The mean of a metric over percentiles.

    Args:
        imputer: Makes the metric for a percentile.
        percentiles: In [0, 100].
    """

    def __init__(
        self,
        imputer: Callable[[float], Callable[..., FloatArray]],
        percentiles: Sequence[float] = PERCENTILES,
    ) -> None:
        self.imputer = imputer
        self.percentiles = list(percentiles)

    def __call__(
        self,
        input_tensor: Tensor,
        cams: Array | Tensor,
        targets: Targets,
        model: Callable[[Tensor], Any],
        return_diff: bool = True,
    ) -> FloatArray:
        """The mean ``[B]``, f32; arguments are the metric's.

        Without ``return_diff`` the images themselves need no passes.
        """
        options = {} if return_diff else {"return_diff": False}
        metrics = (self.imputer(percentile) for percentile in self.percentiles)
        scores = [metric(input_tensor, cams, targets, model, **options) for metric in metrics]
        mean: FloatArray = np.array(scores, dtype=np.float32).mean(0)
        return mean


def _scores(model: Callable[[Tensor], Any], images: Tensor, targets: Targets) -> FloatArray:
    with _evaluating(model, images):
        outputs = model(images)
        if len(outputs) != len(targets):
            raise ValueError(
                f"targets: expected one per output, got {len(targets)} for {len(outputs)}"
            )
        pairs = zip(targets, outputs, strict=True)
        return float32_of(torch.stack([target(output) for target, output in pairs]))


@contextlib.contextmanager
def _evaluating(model: Callable[[Tensor], Any], images: Tensor) -> Iterator[None]:
    """A model is in eval mode inside, has no gradients, and is as before afterwards."""
    if not isinstance(model, nn.Module):
        with torch.no_grad():
            yield
        return
    with (
        evaluating(tuple(model.modules())),
        passes(model, images, lambda copies: ((images,), {}), shorter=False),
    ):
        yield


def _otsu(levels: Tensor) -> int:
    """The level, uint8, up to which pixels are one class so that classes differ most."""
    shares = torch.bincount(levels.flatten(), minlength=256).double() / levels.numel()
    low, moment = shares.cumsum(0), (shares * torch.arange(256, device=shares.device)).cumsum(0)
    between = (moment[-1] * low - moment).square() / (low * (1 - low))
    return int(between.where((low > 1e-7) & (low < 1 - 1e-7), 0).argmax())
