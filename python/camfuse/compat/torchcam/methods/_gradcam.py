"""Extractors whose maps follow from activations and gradients of one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from camfuse.compat.native_maps import native_map
from camfuse.compat.torchcam.methods._targets import ClassIdx, Targets, class_scores, target_scores
from camfuse.compat.torchcam.methods.core import _CAM, TargetLayer
from camfuse.layouts import plane


class _GradCAM(_CAM):
    """Base of extractors that differentiate the scores that the caller's pass returned.

    A model in eval mode whose inputs do not require grad records no graph before the first target
    layer. Gradients go no further than to the target layers: parameters get none.

    Args:
        model: Any module; its parameters may be frozen.
        target_layer: As for the base class, likewise the next one.
        input_shape: Of one sample.
        kwargs: ``enable_hooks`` and ``reshape_transform``, as for the base class.
    """

    _gradients = True
    _method: ClassVar[str] = ""
    """The method of :data:`camfuse.METHODS` that makes the same maps before ReLU, if one does."""

    def __init__(
        self,
        model: nn.Module,
        target_layer: TargetLayer = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **kwargs: Any,
    ) -> None:
        super().__init__(model, target_layer, input_shape, **kwargs)
        self._relu = True
        self._score_used = True
        self._targets_supported = True

    def _is_native(self) -> bool:
        return self._is_own("_get_weights") and self._is_own("_backprop")

    def _unrecorded_modules(self, given: Sequence[Tensor]) -> Sequence[nn.Module]:
        # Whoever defines hooks may differentiate further than to the target layers.
        if not (self._gradients and self._is_native() and torch.is_grad_enabled()):
            return ()
        modules = list(self.model.modules())
        if any(one.training for one in modules) or any(one.requires_grad for one in given):
            return ()
        return modules

    def _raw_maps(self, class_idx: Any, scores: Any, kwargs: dict[str, Any]) -> list[Tensor]:
        native = self._method and self._is_native() and "eps" not in kwargs
        if not native:
            return super()._raw_maps(class_idx, scores, kwargs)
        self._backprop(scores, class_idx, **kwargs)
        pairs = zip(self.hook_a, self.hook_g, strict=True)
        return [native_map(self._method, A, G) for A, G in pairs]

    def _backprop(
        self,
        scores: Any,
        class_idx: ClassIdx | None,
        retain_graph: bool = False,
        targets: Targets | None = None,
    ) -> None:
        """Fills ``hook_g`` with the gradients of the scores.

        Args:
            scores: What the model returned.
            class_idx: The class, or one for each sample.
            retain_graph: Whether the scores will be differentiated once more, by whomever.
            targets: Functions instead of classes.

        Raises:
            RuntimeError: If a target layer has no gradient.
        """
        taps = [self._watch.last(self.submodule_dict[name]) for name in self.target_names]
        with torch.inference_mode(False), torch.enable_grad():
            score = total_score(scores, class_idx, targets)
            for name, tap in zip(self.target_names, taps, strict=True):
                if tap is None or tap.edge is None:
                    raise RuntimeError(_why(name, used=tap is not None and bool(tap.arrived)))
            try:
                self._watch.differentiate(score, retain_graph=retain_graph)
            except ValueError as error:
                raise RuntimeError(
                    "scores: expected what the last pass returned, connected to every target "
                    "layer, got scores that depend on none"
                ) from error
        for name, tap in zip(self.target_names, taps, strict=True):
            if tap is None or tap.gradient is None:
                raise RuntimeError(
                    f"scores: expected them to be connected to every target layer, got scores that "
                    f"do not depend on {name!r}"
                )
        self.hook_g = [tap.gradient for tap in taps if tap is not None]


def total_score(scores: Any, class_idx: ClassIdx | None, targets: Targets | None) -> Tensor:
    """The sum of all samples' scores: in eval mode, none depends on another sample."""
    if targets is not None:
        return target_scores(scores, targets).sum()
    assert class_idx is not None
    return class_scores(scores, class_idx).sum()


def _why(name: str, *, used: bool) -> str:
    if used:
        return (
            "scores: their graph was freed when maps were made; pass retain_graph=True to all "
            "calls but the last"
        )
    return (
        f"scores: expected a forward pass with gradients enabled, got one in which {name!r} "
        "recorded none, as under torch.no_grad()"
    )


class GradCAM(_GradCAM):
    """Grad-CAM (Selvaraju et al., ICCV 2017): channels weighted by their mean gradient."""

    _method = "gradcam"

    def _get_weights(self, class_idx: Any, scores: Any, **kwargs: Any) -> list[Tensor]:
        self._backprop(scores, class_idx, **kwargs)
        return [G.flatten(2).mean(-1) for G in self.hook_g]


class GradCAMpp(_GradCAM):
    """Grad-CAM++ (Chattopadhay et al., WACV 2018, eq. 19)."""

    _method = "gradcam++"

    def _get_weights(
        self, class_idx: Any, scores: Any, eps: float = 1e-6, **kwargs: Any
    ) -> list[Tensor]:
        self._backprop(scores, class_idx, **kwargs)

        def weigh(A: Tensor, G: Tensor) -> Tensor:
            square = G.square()
            parts = square / (2 * square + square * G * A.sum((2, 3), keepdim=True) + eps)
            parts = torch.where(G == 0, torch.zeros_like(parts), parts)
            weights: Tensor = (G.clamp(min=0) * parts).sum((2, 3))
            return weights

        return _in_f64(weigh, self.hook_a, self.hook_g)


class XGradCAM(_GradCAM):
    """XGrad-CAM (Fu et al., BMVC 2020, eq. 8): gradients averaged by activation."""

    _method = "xgradcam"

    def _get_weights(
        self, class_idx: Any, scores: Any, eps: float = 1e-7, **kwargs: Any
    ) -> list[Tensor]:
        self._backprop(scores, class_idx, **kwargs)

        def weigh(A: Tensor, G: Tensor) -> Tensor:
            weights: Tensor = (G * A).sum((2, 3)) / (A.sum((2, 3)) + eps)
            return weights

        return _in_f64(weigh, self.hook_a, self.hook_g)


class LayerCAM(_GradCAM):
    """LayerCAM (Jiang et al., IEEE TIP 2021, eq. 4 and 5): elements by their positive gradient."""

    _method = "layercam"

    def _get_weights(self, class_idx: Any, scores: Any, **kwargs: Any) -> list[Tensor]:
        self._backprop(scores, class_idx, **kwargs)
        return [G.clamp(min=0) for G in self.hook_g]

    @staticmethod
    def _scale_cams(cams: list[Tensor], gamma: float = 2.0) -> list[Tensor]:
        """What the paper does to maps of early layers (eq. 9)."""
        return [torch.tanh(gamma * cam) for cam in cams]


def _in_f64(
    weigh: Callable[[Tensor, Tensor], Tensor], activations: list[Any], gradients: list[Any]
) -> list[Tensor]:
    """Weights ``[B, C]`` of each layer, in the dtype of its gradients; sums are taken in f64."""
    pairs = zip(activations, gradients, strict=True)
    return [weigh(plane(A).double(), plane(G).double()).to(G.dtype) for A, G in pairs]
