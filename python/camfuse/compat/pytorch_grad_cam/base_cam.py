"""What all methods share: passes, hooks for subclasses, scaling, layers' mean, smoothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from camfuse.compat.hooks import is_own
from camfuse.compat.native_maps import native_map
from camfuse.compat.pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from camfuse.compat.pytorch_grad_cam.arrays import Array, as_array
from camfuse.compat.pytorch_grad_cam.augmentations import AUGMENTATIONS
from camfuse.compat.pytorch_grad_cam.scores import Target, classes, total_score
from camfuse.compat.pytorch_grad_cam.utils.image import scale_cam_image
from camfuse.compat.pytorch_grad_cam.utils.svd_on_activations import get_2d_projection
from camfuse.preserve import evaluating, kept_gradients

_FACE = __name__.rpartition(".")[0]


class BaseCAM:
    """Maps of a model's layers, averaged over the layers.

    Subclasses define ``get_cam_weights`` or ``get_cam_image``; those that define neither beyond
    what a method of this package does are computed by native kernels.

    Args:
        model: Any module. It is in eval mode during calls alone, and otherwise left as it is.
        target_layers: Some of its modules.
        reshape_transform: From a layer's output to ``[B, C, *grid]``, applied to gradients too.
        compute_input_gradient: Whether ``get_cam_image`` finds the gradient of the images in
            ``input_tensor.grad``.
        uses_gradients: Whether gradients are needed; without them there is no backward pass.
        tta_transforms: What ``aug_smooth`` averages over: objects with ``augment_image`` and
            ``deaugment_mask``; the image and its mirror image at 0.9, 1 and 1.1 times its values by
            default.
        detach: Whether activations and gradients are handed over as NumPy arrays; else as tensors
            that are attached to the graph.
    """

    _method: ClassVar[str] = ""
    """The method of :data:`camfuse.METHODS` that makes such maps before ReLU, if one does."""

    _hooks: ClassVar[tuple[str, ...]] = ("get_cam_weights", "get_cam_image")
    """What a native map goes past; one that is defined outside this package is heeded."""

    outputs: Any
    """What the model returned in the last call, detached."""

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        compute_input_gradient: bool = False,
        uses_gradients: bool = True,
        tta_transforms: Any = None,
        detach: bool = True,
    ) -> None:
        _check(model, target_layers)
        self.model = model
        self.target_layers = target_layers
        self.device = next((one.device for one in model.parameters()), torch.device("cpu"))
        self.reshape_transform = reshape_transform
        self.compute_input_gradient = compute_input_gradient
        self.uses_gradients = uses_gradients
        self.tta_transforms = AUGMENTATIONS if tta_transforms is None else tta_transforms
        self.detach = detach
        self.activations_and_grads = ActivationsAndGradients(
            model, target_layers, reshape_transform, detach
        )

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Sequence[Target] | None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> Array:
        """The maps of the images.

        Args:
            input_tensor: ``[B, C, H, W]``, or ``[B, C, D, H, W]``.
            targets: From one image's output to its score, one per image; None for the classes of
                the highest output.
            aug_smooth: Whether maps are averaged over ``tta_transforms``.
            eigen_smooth: Whether maps are the first principal component of their terms instead of
                their sum over the channels.

        Returns:
            ``[B, H, W]``, f32 in [0, 1], each map by its own range.

        Raises:
            ValueError: If an argument does not fit: there are fewer targets than images, the score
                depends on no target layer, a target layer is not executed.
        """
        if aug_smooth:
            return self.forward_augmentation_smoothing(input_tensor, targets, eigen_smooth)
        return self.forward(input_tensor, targets, eigen_smooth)

    def forward(
        self,
        input_tensor: Tensor,
        targets: Sequence[Target] | None,
        eigen_smooth: bool = False,
    ) -> Array:
        """One forward pass, one backward pass to the target layers, and the maps from them."""
        maps = self._layers_maps(input_tensor, targets, eigen_smooth)
        return self.aggregate_multi_layers(maps)

    def _layers_maps(
        self,
        input_tensor: Tensor,
        targets: Sequence[Target] | None,
        eigen_smooth: bool,
        choose: Callable[[Any], Sequence[Target]] = classes,
    ) -> list[Array]:
        """Finished maps of each target layer; ``choose`` makes targets of the model's output."""
        with torch.inference_mode(False), torch.set_grad_enabled(self.uses_gradients):
            x = input_tensor.to(self.device).detach()
            if x.is_inference() or self.compute_input_gradient:
                x = x.clone().requires_grad_(self.compute_input_gradient)
            outputs = self._outputs(x)
            self.outputs = tree_map_only(Tensor, Tensor.detach, outputs)
            if targets is None:  # who uses no gradients may need no targets either
                needed = self.uses_gradients or isinstance(outputs, Tensor)
                chosen = choose(outputs) if needed else []
            else:
                chosen = targets
            if self.uses_gradients:
                self._differentiate(total_score(chosen, outputs, len(x)), x)
        del outputs  # and with it the graph
        return self.compute_cam_per_layer(x, chosen, eigen_smooth)

    def compute_cam_per_layer(
        self, input_tensor: Tensor, targets: Sequence[Target], eigen_smooth: bool
    ) -> list[Array]:
        """Finished maps ``[B, 1, H, W]`` of each target layer."""
        activations = self.activations_and_grads.activations
        if len(activations) < len(self.target_layers):
            raise ValueError(
                "target_layers: expected layers that the model executes, got "
                f"{len(self.target_layers) - len(activations)} that it does not"
            )
        gradients: Sequence[Tensor | None] = self.activations_and_grads.gradients
        gradients = gradients or [None] * len(activations)
        size = self.get_target_width_height(input_tensor)
        maps = []
        for layer, A, G in zip(self.target_layers, activations, gradients, strict=False):
            if self._is_native():
                found = self._native_image(input_tensor, layer, targets, A, G, eigen_smooth)
                raw = as_array(found)
            else:
                a, g = (as_array(A), as_array(G)) if self.detach else (A, G)
                raw = self.get_cam_image(input_tensor, layer, targets, a, g, eigen_smooth)
            maps.append(scale_cam_image(np.maximum(raw, 0), size)[:, None])
        return maps

    def get_cam_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> Array:
        """Raw maps ``[B, h, w]`` of one layer: activations weighted by ``get_cam_weights``.

        Args:
            input_tensor: The images.
            target_layer: The layer.
            targets: The targets.
            activations: ``[B, C, h, w]``.
            grads: Likewise; None for methods that use none.
            eigen_smooth: Whether they are the first principal component of the weighted
                activations instead of their sum.
        """
        weights = self.get_cam_weights(input_tensor, target_layer, targets, activations, grads)
        A = as_array(activations)
        if A.ndim not in (4, 5):
            raise ValueError(
                f"reshape_transform: expected activations [B, C, h, w] or [B, C, D, h, w], got "
                f"{A.shape}"
            )
        weighted = np.asarray(weights)[(..., *[None] * (A.ndim - 2))] * A
        found: Array = get_2d_projection(weighted) if eigen_smooth else weighted.sum(axis=1)
        return found

    def get_cam_weights(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
    ) -> Array:
        """The weight of each channel ``[B, C]``; arguments as for :meth:`get_cam_image`."""
        raise NotImplementedError(
            f"{type(self).__name__} defines neither get_cam_weights nor get_cam_image"
        )

    def get_target_width_height(self, input_tensor: Tensor) -> tuple[int, ...]:
        """The size of the images, last axis first."""
        if input_tensor.ndim not in (4, 5):
            raise ValueError(
                "input_tensor: expected [B, C, H, W] or [B, C, D, H, W], got "
                f"{tuple(input_tensor.shape)}"
            )
        return tuple(input_tensor.shape[:1:-1])

    def aggregate_multi_layers(self, cam_per_target_layer: Sequence[Array]) -> Array:
        """The mean of the layers' maps, by its own range ``[B, H, W]``."""
        joined = np.maximum(np.concatenate(cam_per_target_layer, axis=1), 0)
        return scale_cam_image(joined.mean(axis=1))

    def forward_augmentation_smoothing(
        self,
        input_tensor: Tensor,
        targets: Sequence[Target] | None,
        eigen_smooth: bool = False,
    ) -> Array:
        """The mean of the maps of all variations of the images, turned back."""
        maps = []
        for transform in self.tta_transforms:
            varied = transform.augment_image(input_tensor)
            found = torch.from_numpy(self.forward(varied, targets, eigen_smooth))
            maps.append(transform.deaugment_mask(found[:, None])[:, 0].numpy())
        mean: Array = np.mean(np.asarray(maps, np.float32), axis=0)
        return mean

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.activations_and_grads.release()

    def _native_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        A: Tensor,
        G: Tensor | None,
        eigen_smooth: bool,
    ) -> Tensor:
        """What ``get_cam_image`` returns, where the tensors are."""
        return native_map(self._method, A, G, eigen_smooth=eigen_smooth)

    def _is_native(self) -> bool:
        """Whether no hook is defined outside this package, by a subclass or on the object."""
        return bool(self._method) and all(map(self._is_own, self._hooks))

    def _is_apart(self) -> bool:
        """Whether each target layer's map is made as if there were no others."""
        whole = ("forward", "compute_cam_per_layer", "aggregate_multi_layers", "__call__")
        return (
            self._is_native()
            and all(map(self._is_own, whole))
            and type(self).compute_cam_per_layer is BaseCAM.compute_cam_per_layer
            and isinstance(self.activations_and_grads, ActivationsAndGradients)
        )

    def _is_own(self, hook: str) -> bool:
        return is_own(self, hook, _FACE)

    def _outputs(self, x: Tensor) -> Any:
        inner = self.activations_and_grads
        if isinstance(inner, ActivationsAndGradients):
            return inner(x)
        # A stand-in of the user's is used to a model that is in eval mode all along.
        with evaluating(tuple(self.model.modules())):
            return inner(x)

    def _differentiate(self, score: Tensor, x: Tensor) -> None:
        inner = self.activations_and_grads
        if isinstance(inner, ActivationsAndGradients):
            inner.differentiate(score, *([x] if self.compute_input_gradient else []))
        else:  # it waits for a backward pass through everything
            with kept_gradients(self.model):
                score.backward(retain_graph=True)


def _check(model: object, target_layers: Any) -> None:
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    # A Sequential is as good as a list of its children.
    if not hasattr(target_layers, "__getitem__") or not len(target_layers):
        raise ValueError(f"target_layers: expected a list of modules, got {target_layers!r}")
    for layer in target_layers:
        if not isinstance(layer, nn.Module):
            raise ValueError(f"target_layers: expected modules, got {type(layer).__name__}")
