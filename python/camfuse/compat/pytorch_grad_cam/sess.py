"""SESS: maps of objects large and small, by windows that slide over the image at several scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from camfuse.checks import expect_whole
from camfuse.compat.pytorch_grad_cam.arrays import Array, as_array
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.grad_cam import GradCAM
from camfuse.compat.pytorch_grad_cam.passes import many_passes
from camfuse.compat.pytorch_grad_cam.scores import Target, check_targets
from camfuse.compat.pytorch_grad_cam.utils.image import scale_cam_image
from camfuse.compat.pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from camfuse.compat.pytorch_grad_cam.utils.resizing import resized
from camfuse.windows import Grid, Place, blurred


class SESS:
    """Saliency Enhancing with Scaling and Sliding (Tursun et al., ECCV 2022), by any method.

    The image is enlarged to each scale, and a square window slides over it. Each window's map is
    weighed by the window's score over that of the best, and laid where the window was; all are
    pooled and smoothed.

    Args:
        model: It must take images of the window's size.
        target_layers: As for the method, likewise ``reshape_transform``.
        reshape_transform: From a layer's output to ``[B, C, *grid]``.
        base_method: The method; anything that is called like :class:`BaseCAM` and makes maps.
        scales: Lengths of the enlarged image's shorter side, none below the window's. By default
            ``num_scales`` of them, which begin with the window's side.
        num_scales: How many.
        scale_step_ratio: By how much of the window's side they grow.
        window_size: Side of the window; the image's shorter side by default.
        step_size: How far the window slides; its side by default.
        pre_filter_ratio: Part of the windows, those of the lowest scores, that are left out.
        theta: Values no greater do not count in a mean.
        pool: ``"mean"`` or ``"max"``: how values at a pixel are joined.
        smooth: Whether the result is blurred.
        use_softmax_scores: Whether windows are weighed by the target's value for the softmax of the
            model's output, else for the output itself; negative ones count as 0.
        batch_size: How many windows go through the model at once.
        kwargs: More arguments of the method's.

    Raises:
        ValueError: If an argument does not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        base_method: Callable[..., Any] = GradCAM,
        scales: Sequence[int] | None = None,
        num_scales: int = 12,
        scale_step_ratio: float = 2.0 / 7.0,
        window_size: int | None = None,
        step_size: int | None = None,
        pre_filter_ratio: float = 0.0,
        theta: float = 0.0,
        pool: str = "mean",
        smooth: bool = True,
        use_softmax_scores: bool = True,
        batch_size: int = 32,
        **kwargs: Any,
    ) -> None:
        if pool not in ("mean", "max"):
            raise ValueError(f"pool: expected 'mean' or 'max', got {pool!r}")
        if not 0 <= pre_filter_ratio < 1:
            raise ValueError(f"pre_filter_ratio: expected a part in [0, 1), got {pre_filter_ratio}")
        expect_whole("num_scales", num_scales, at_least=1)
        expect_whole("batch_size", batch_size, at_least=1)
        self.base_cam = base_method(model, target_layers, reshape_transform, **kwargs)
        self.model = self.base_cam.model
        self.device = self.base_cam.device
        self.scales = scales
        self.num_scales = num_scales
        self.scale_step_ratio = scale_step_ratio
        self.window_size = window_size
        self.step_size = step_size
        self.pre_filter_ratio = pre_filter_ratio
        self.theta = theta
        self.pool = pool
        self.smooth = smooth
        self.use_softmax_scores = use_softmax_scores
        self.batch_size = batch_size

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Sequence[Target] | None = None,
        eigen_smooth: bool = False,
    ) -> Array:
        """The maps of the images.

        Args:
            input_tensor: ``[B, C, H, W]``.
            targets: One per image, each called with a batch of outputs; None for the classes of the
                highest output of the whole images.
            eigen_smooth: As for the method.

        Returns:
            ``[B, H, W]``, f32 in [0, 1], each map by its own range.

        Raises:
            ValueError: If an argument does not fit.
        """
        return self.forward(input_tensor, targets, eigen_smooth)

    def forward(
        self,
        input_tensor: Tensor,
        targets: Sequence[Target] | None = None,
        eigen_smooth: bool = False,
    ) -> Array:
        """The same."""
        if input_tensor.ndim != 4:
            raise ValueError(
                f"input_tensor: expected [B, C, H, W], got {tuple(input_tensor.shape)}"
            )
        images = input_tensor.detach().to(self.device)
        if targets is None:
            targets = self._classes(images)
        check_targets(targets, len(images))
        maps = [
            self.forward_single_image(image[None], target, eigen_smooth)
            for image, target in zip(images, targets, strict=False)
        ]
        return scale_cam_image(np.asarray(maps, np.float32))

    def forward_single_image(
        self, input_tensor: Tensor, target: Target | None, eigen_smooth: bool = False
    ) -> Array:
        """The map ``[H, W]`` of one image ``[1, C, H, W]``, not yet by its range."""
        if target is None:
            (target,) = self._classes(input_tensor)
        grid = self._grid(input_tensor)
        places = grid.places(1)
        weights = None
        if self.pre_filter_ratio or not self._tells_outputs():
            weights = self._weights(input_tensor, grid, places, target)
            order = weights.argsort()[int(len(weights) * self.pre_filter_ratio) :]
            places, weights = [places[i] for i in order], weights[order]
        maps: list[Array] = []
        told = []
        for some in self._batches(places):
            windows = grid.cut(input_tensor, some)
            maps += list(self.base_cam(windows, [target] * len(some), eigen_smooth=eigen_smooth))
            if weights is None:  # the same pass tells the scores
                told.append(self._weight(self.base_cam.outputs, target))
        if weights is None:
            weights = np.concatenate(told)
        best = weights.max()
        weights = weights / best if best > 0 else np.ones_like(weights)
        fused = self._fused(maps, places, weights, grid.window, input_tensor.shape[2:])
        found: Array = (blurred(fused[None])[0] if self.smooth else fused).numpy()
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.base_cam.activations_and_grads.release()

    def _grid(self, image: Tensor) -> Grid:
        shorter, longer = sorted(image.shape[2:])
        side = shorter if self.window_size is None else self.window_size
        step = side if self.step_size is None else self.step_size
        growth = round(side * self.scale_step_ratio)
        scales = self.scales or [side + growth * i for i in range(self.num_scales)]
        if min(scales) < side:
            raise ValueError(
                f"scales: expected none below the window's side {side}, got {min(scales)}"
            )
        upright = image.shape[2] > image.shape[3]
        sizes = [(scale, scale * longer // shorter) for scale in scales]
        return Grid([(b, a) if upright else (a, b) for a, b in sizes], side, step)

    def _batches(self, places: Sequence[Place]) -> Iterator[Sequence[Place]]:
        return (
            places[start : start + self.batch_size]
            for start in range(0, len(places), self.batch_size)
        )

    def _classes(self, images: Tensor) -> list[Target]:
        """A target for the highest output of each image."""
        with many_passes(self.model, images, 0):
            outputs = [self.model(image[None])[0] for image in images]
        return [ClassifierOutputTarget(int(output.argmax(-1))) for output in outputs]

    def _weights(self, image: Tensor, grid: Grid, places: Sequence[Place], target: Target) -> Array:
        """What each window weighs ``[n]``."""
        with many_passes(self.model, grid.cut(image, places[:1]), len(places)):
            return np.concatenate(
                [
                    self._weight(self.model(grid.cut(image, some)), target)
                    for some in self._batches(places)
                ]
            )

    def _weight(self, outputs: Any, target: Target) -> Array:
        known = torch.softmax(outputs, -1) if self.use_softmax_scores else outputs
        found: Array = as_array(target(known).clamp(min=0))
        return found

    def _tells_outputs(self) -> bool:
        """Whether the method keeps what the model returned for the windows."""
        return isinstance(self.base_cam, BaseCAM) and self.base_cam._is_own("forward")

    def _fused(
        self,
        maps: Sequence[Array],
        places: Sequence[Place],
        weights: Array,
        window: int,
        size: Sequence[int],
    ) -> Tensor:
        """One map ``[H, W]`` from those of the windows; one after another, to save memory."""
        fused = torch.zeros(*size)
        counts = torch.zeros(*size)
        for heat, place, weight in zip(maps, places, weights, strict=True):
            whole = torch.zeros(place.size)
            part = whole[place.top : place.top + window, place.left : place.left + window]
            part += torch.from_numpy(heat) * weight
            laid = resized(whole[None], size)[0]
            if self.pool == "max":
                torch.maximum(fused, laid, out=fused)
            else:
                counted = laid > self.theta
                fused += laid * counted
                counts += counted
        return fused / counts.clamp(min=1) if self.pool == "mean" else fused
