"""One map of several layers: what all of them agree on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camfuse.compat.torchcam.methods._delegate import Delegate
from camfuse.compat.torchcam.methods._gradcam import GradCAMpp
from camfuse.compat.torchcam.methods._maps import resized
from camfuse.compat.torchcam.methods._targets import Targets
from camfuse.compat.torchcam.methods.core import _CAM, check_maps, largest_grid


class RefineCAM(Delegate):
    """RefineCAM (arXiv 2605.14641): the product of several layers' maps.

    Args:
        model: Any module.
        target_layer: At least two of its modules, or their names.
        input_shape: Of one sample.
        base_method: The extractor of each layer's map.
        base_kwargs: Further arguments for it.

    Raises:
        TypeError: If ``base_method`` is no extractor's class.
        ValueError: If there are fewer than two layers.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: list[nn.Module | str],
        input_shape: tuple[int, ...] = (3, 224, 224),
        *,
        base_method: type[_CAM] = GradCAMpp,
        **base_kwargs: Any,
    ) -> None:
        if not isinstance(target_layer, list) or len(target_layer) < 2:
            raise ValueError(f"target_layer: expected two layers or more, got {target_layer!r}")
        if not isinstance(base_method, type) or not issubclass(base_method, _CAM):
            raise TypeError(f"base_method: expected an extractor's class, got {base_method!r}")
        super().__init__(base_method(model, target_layer, input_shape=input_shape, **base_kwargs))

    def __call__(
        self,
        class_idx: int | list[int] | None = None,
        scores: Any = None,
        normalized: bool = True,
        target_shape: Sequence[int] | None = None,
        *,
        targets: Targets | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """A map ``[B, *grid]`` of the last pass, at ``target_shape`` or the largest resolution."""
        cams = self.base_cam(class_idx, scores, normalized=True, targets=targets, **kwargs)
        return [self.fuse_cams(cams, target_shape, normalized)]

    def compute_cams(
        self,
        class_idx: int | list[int] | None = None,
        scores: Any = None,
        normalized: bool = True,
        target_shape: Sequence[int] | None = None,
        *,
        targets: Targets | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """As a call, without its checks."""
        cams = self.base_cam.compute_cams(class_idx, scores, True, targets=targets, **kwargs)
        return [self.fuse_cams(cams, target_shape, normalized)]

    @staticmethod
    @torch.no_grad()
    def fuse_cams(
        cams: list[Tensor],
        target_shape: Sequence[int] | None = None,
        normalized: bool = True,
    ) -> Tensor:
        """The product of maps ``[B, *grid]``, each by its own range and enlarged.

        Raises:
            TypeError: If ``cams`` is no list of tensors.
            ValueError: If it is empty.
        """
        check_maps(cams)
        shape = tuple(target_shape) if target_shape else largest_grid(cams)
        product = math.prod(resized(_CAM._normalize(cam.clone()), shape) for cam in cams)
        assert isinstance(product, Tensor)
        return _CAM._normalize(product) if normalized else product

    def __repr__(self) -> str:
        return (
            f"RefineCAM(base_method={type(self.base_cam).__name__}, "
            f"target_layer={self.target_names})"
        )
