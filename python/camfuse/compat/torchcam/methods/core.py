"""What all extractors share: hooks, checks, maps of layers, and how these become one."""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from functools import reduce
from types import TracebackType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from camfuse import ops
from camfuse.compat.hooks import is_own
from camfuse.compat.torchcam.methods._economy import is_transformed
from camfuse.compat.torchcam.methods._maps import resized
from camfuse.compat.torchcam.methods._targets import OutputTarget, Targets, per_sample
from camfuse.compat.torchcam.methods._utils import locate_candidate_layer
from camfuse.compat.torchcam.methods._watch import Watch, WeakHook
from camfuse.layouts import plane
from camfuse.structures import tensors_in

__all__ = ["_CAM", "OutputTarget"]

_logger = logging.getLogger(__name__)
_FACE = __name__.partition(".methods.")[0]

TargetLayer = nn.Module | str | list[nn.Module | str] | None


class _CAM:
    """Maps of a model's layers, after forward passes that the caller runs.

    A subclass defines ``_get_weights``; what it defines beyond that (``_precheck``,
    ``compute_cams``, ``_normalize``, ``_scale_cams``, ``_fuse_cams``) keeps its meaning, as do
    ``_relu`` (negative evidence becomes 0), ``_score_used`` (scores must be passed) and
    ``_targets_supported``, which it sets. ``hook_a`` and ``hook_g`` hold the activations
    ``[B, C, *grid]`` of the last pass and their gradients, by target layer.

    An extractor that is deleted takes its hooks with it.

    Args:
        model: Any module.
        target_layer: One of its modules, or several, or their names; by default the last one whose
            output has positions, for which the model is run once.
        input_shape: Of one sample, for that run.
        enable_hooks: Whether passes are watched from the beginning.
        reshape_transform: From a layer's output to ``[B, C, *grid]``, applied to gradients too.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If there is no such layer.
    """

    _gradients: ClassVar[bool] = False
    """Whether gradients at the target layers are asked for."""

    def __init__(
        self,
        model: nn.Module,
        target_layer: TargetLayer = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        enable_hooks: bool = True,
        reshape_transform: Callable[[Any], Tensor] | None = None,
    ) -> None:
        if reshape_transform is not None and not callable(reshape_transform):
            raise TypeError(
                f"reshape_transform: expected a function, got {type(reshape_transform).__name__}"
            )
        if reshape_transform is not None and target_layer is None:
            raise ValueError("target_layer: expected one beside reshape_transform, got None")
        self.model = model
        self.submodule_dict: dict[str, nn.Module] = dict(model.named_modules())
        self.target_names = self._resolve_names(target_layer, input_shape)
        self._relu = False
        self._score_used = False
        self._targets_supported = False
        self._watch = Watch(
            {self.submodule_dict[name]: name for name in self.target_names},
            reshape_transform,
            gradients=self._gradients,
        )
        self._hooks_enabled = enable_hooks
        self.reset_hooks()
        self.hook_handles: list[RemovableHandle] = [
            model.register_forward_pre_hook(WeakHook(self._begin), with_kwargs=True),
            *self._watch.attach(),
            *(
                self.submodule_dict[name].register_forward_hook(WeakHook(self._hook_a, idx=i))
                for i, name in enumerate(self.target_names)
            ),
            model.register_forward_hook(WeakHook(self._end), always_call=True),
        ]
        weakref.finalize(self, _let_go, self._watch, self.hook_handles).atexit = False

    # Hooks

    @property
    def _hooks_enabled(self) -> bool:
        """Whether passes are watched."""
        return self._watch.open

    @_hooks_enabled.setter
    def _hooks_enabled(self, enabled: bool) -> None:
        self._watch.open = enabled

    def enable_hooks(self) -> None:
        """Passes are watched from now on."""
        self._hooks_enabled = True

    def disable_hooks(self) -> None:
        """Passes are left alone from now on."""
        self._hooks_enabled = False

    def reset_hooks(self) -> None:
        """Forgets the last pass."""
        self.hook_a: list[Any] = [None] * len(self.target_names)
        self.hook_g: list[Any] = [None] * len(self.target_names)
        self._watch.clear()

    def remove_hooks(self) -> None:
        """Takes all hooks off the model, for good."""
        _let_go(self._watch, self.hook_handles)

    @contextlib.contextmanager
    def _hooks_off(self) -> Iterator[None]:
        before, self._hooks_enabled = self._hooks_enabled, False
        try:
            yield
        finally:
            self._hooks_enabled = before

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.remove_hooks()
        finally:
            self.reset_hooks()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._hooks_enabled or is_transformed():
            return
        given = list(tensors_in([args, kwargs]))
        self._watch.begin(self._unrecorded_modules(given), given)
        self.hook_a = [None] * len(self.target_names)
        self._keep(args, kwargs)

    def _keep(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remembers what the model is called with, for extractors that run it again."""

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._watch.end()

    def _unrecorded_modules(self, given: Sequence[Tensor]) -> Sequence[nn.Module]:
        """Which modules' parameters need no graph in a pass."""
        return ()

    def _hook_a(self, module: nn.Module, args: tuple[Any, ...], output: Any, idx: int = 0) -> None:
        if self._hooks_enabled and (tap := self._watch.last(module)) is not None:
            self.hook_a[idx] = tap.activation

    # Maps

    def __call__(
        self,
        class_idx: int | list[int] | None = None,
        scores: Any = None,
        normalized: bool = True,
        *,
        targets: Targets | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """The maps of the last pass; arguments as for :meth:`compute_cams`.

        Raises:
            AssertionError: If there was no pass, or it did not reach all target layers.
            ValueError: If an argument does not fit.
        """
        self._precheck(class_idx, scores, targets)
        return self.compute_cams(class_idx, scores, normalized, targets=targets, **kwargs)

    def compute_cams(
        self,
        class_idx: int | list[int] | None = None,
        scores: Any = None,
        normalized: bool = True,
        *,
        targets: Targets | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """The maps of the last pass.

        Args:
            class_idx: The class, or one for each sample.
            scores: What the model returned.
            normalized: Whether each map is divided by its own range, to [0, 1].
            targets: Instead of classes: from one sample's output to its score, or one such function
                for each sample.
            kwargs: For ``_get_weights``.

        Returns:
            ``[B, *grid]`` for each target layer, in the dtype of its activations.
        """
        if targets is not None:
            kwargs["targets"] = targets
        maps = []
        for raw, A in zip(self._raw_maps(class_idx, scores, kwargs), self.hook_a, strict=True):
            cam = raw.clamp(min=0) if self._relu else raw
            cam = self._normalize(cam) if normalized else cam
            maps.append(cam.to(A.dtype))
        return maps

    def _get_weights(self, class_idx: Any, *args: Any, **kwargs: Any) -> list[Tensor]:
        """Of each target layer's channels ``[B, C]``, or of all its elements ``[B, C, *grid]``."""
        raise NotImplementedError(f"{type(self).__name__} does not define _get_weights")

    def _raw_maps(self, class_idx: Any, scores: Any, kwargs: dict[str, Any]) -> list[Tensor]:
        weights = self._get_weights(class_idx, scores, **kwargs)
        native = self._is_own("_get_weights")
        with torch.no_grad():
            return [
                _weighted(weight, A, native=native)
                for weight, A in zip(weights, self.hook_a, strict=True)
            ]

    def _is_own(self, hook: str) -> bool:
        return is_own(self, hook, _FACE)

    @staticmethod
    @torch.no_grad()
    def _normalize(cams: Tensor, spatial_dims: int | None = None, eps: float = 1e-8) -> Tensor:
        """Maps the range of each map to [0, 1], in place; constant ones become 0."""
        count = cams.ndim - 1 if spatial_dims is None else spatial_dims
        axes = tuple(range(cams.ndim - count, cams.ndim))
        cams -= cams.amin(axes, keepdim=True)
        cams /= cams.amax(axes, keepdim=True) + eps
        return cams

    def _precheck(
        self, class_idx: int | list[int] | None, scores: Any = None, targets: Targets | None = None
    ) -> None:
        """Checks what an extractor is called with.

        Raises:
            AssertionError: If there was no pass, or it did not reach all target layers.
            TypeError: If an argument is of the wrong type.
            ValueError: If an argument does not fit.
        """
        if (class_idx is None) == (targets is None):
            raise ValueError("class_idx: expected either classes or targets, got both or neither")
        if targets is not None and not self._targets_supported:
            raise ValueError(f"targets: {type(self).__name__} explains classes only")
        for name, A in zip(self.target_names, self.hook_a, strict=True):
            if not isinstance(A, Tensor):
                raise AssertionError(
                    f"expected a forward pass through {name!r} with hooks enabled before maps are "
                    "asked for, saw none"
                )
        batch = len(self.hook_a[0])
        if targets is not None:
            per_sample(targets, batch)
        else:
            _check_classes(class_idx, batch)
        if self._score_used and scores is None:
            raise ValueError("scores: expected what the model returned, got None")
        if self._score_used and targets is None and not isinstance(scores, Tensor):
            raise TypeError(
                f"scores: expected a tensor beside class_idx, got {type(scores).__name__}"
            )

    # Several layers

    @classmethod
    def fuse_cams(cls, cams: list[Tensor], target_shape: Sequence[int] | None = None) -> Tensor:
        """One map of several layers: their maximum, at the largest resolution.

        Args:
            cams: Maps ``[B, *grid]``. A single one is returned as it is.
            target_shape: Another resolution.

        Raises:
            TypeError: If ``cams`` is no list of tensors.
            ValueError: If it is empty.
        """
        check_maps(cams)
        if len(cams) == 1:
            return cams[0]
        shape = largest_grid(cams) if target_shape is None else tuple(target_shape)
        return cls._fuse_cams(cls._scale_cams(cams), shape)

    @staticmethod
    def _scale_cams(cams: list[Tensor]) -> list[Tensor]:
        return cams

    @staticmethod
    def _fuse_cams(cams: list[Tensor], target_shape: tuple[int, ...]) -> Tensor:
        return reduce(torch.maximum, (resized(cam, target_shape) for cam in cams))

    # Names

    def _resolve_names(self, target_layer: TargetLayer, input_shape: tuple[int, ...]) -> list[str]:
        if target_layer is None:
            found = locate_candidate_layer(self.model, input_shape)
            if found is None:
                raise ValueError(
                    f"target_layer: found none with positions for input_shape {input_shape}; pass "
                    "one of model.named_modules()"
                )
            _logger.warning("target_layer: none was given, took %r", found)
            return [found]
        layers = target_layer if isinstance(target_layer, list) else [target_layer]
        for one in layers:
            if not isinstance(one, nn.Module | str):
                raise TypeError(
                    f"target_layer: expected modules or names, got {type(one).__name__}"
                )
        return [self._resolve_layer_name(one) for one in layers]

    def _resolve_layer_name(self, layer: nn.Module | str, what: str = "target_layer") -> str:
        if isinstance(layer, nn.Module):
            for name, module in self.submodule_dict.items():
                if module is layer:
                    return name
            raise ValueError(f"{what}: this {type(layer).__name__} is no module of the model")
        if layer not in self.submodule_dict:
            close = get_close_matches(layer, self.submodule_dict)
            hint = f"; did you mean one of {close}?" if close else ""
            raise ValueError(
                f"{what}: expected a name in model.named_modules(), got {layer!r}{hint}"
            )
        return layer

    def _extra_repr(self) -> str:
        return f"target_layer={self.target_names}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._extra_repr()})"


def check_maps(cams: Any) -> None:
    """Checks that there is a list of maps.

    Raises:
        TypeError: If it is no list of tensors.
        ValueError: If it is empty.
    """
    if not isinstance(cams, list) or not all(isinstance(one, Tensor) for one in cams):
        raise TypeError("cams: expected a list of tensors")
    if not cams:
        raise ValueError("cams: expected at least one map, got none")


def largest_grid(cams: Sequence[Tensor]) -> tuple[int, ...]:
    """The largest size along each axis of any map."""
    return tuple(map(max, zip(*(cam.shape[1:] for cam in cams), strict=True)))


def _let_go(watch: Watch, handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
    handles.clear()
    watch.end_all()


def _check_classes(class_idx: Any, batch: int) -> None:
    classes = class_idx if isinstance(class_idx, list) else [class_idx]
    if not all(isinstance(one, int) and one >= 0 for one in classes):
        raise ValueError(f"class_idx: expected classes of at least 0, got {class_idx!r}")
    if isinstance(class_idx, list) and len(class_idx) != batch:
        raise ValueError(f"class_idx: expected one per sample, {batch}, got {len(class_idx)}")


def _weighted(weight: Tensor, A: Tensor, *, native: bool) -> Tensor:
    """The weighted sum over channels ``[B, *grid]``.

    Weights of a subclass may be NaN, as a fraction 0 / 0 is, which counts as 0.
    """
    if native and weight.ndim == 2:
        weights = weight.expand(len(A), -1).to(A.dtype)
        maps, _ = ops.layer_cam(plane(A), None, ["weighted"], weights=weights)
        return maps[0].view(len(A), *A.shape[2:])
    spread = weight[(..., *[None] * (A.ndim - weight.ndim))]
    return torch.nansum(spread * A, dim=1)
