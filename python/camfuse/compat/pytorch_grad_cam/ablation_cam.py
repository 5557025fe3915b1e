"""Ablation-CAM: a channel weighs what the score loses without it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from camfuse.compat.native_maps import weighted_map
from camfuse.compat.pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerVit
from camfuse.compat.pytorch_grad_cam.arrays import Array, as_array
from camfuse.compat.pytorch_grad_cam.base_cam import BaseCAM
from camfuse.compat.pytorch_grad_cam.gradient_free import GradientFreeCAM
from camfuse.compat.pytorch_grad_cam.passes import copies_of, many_passes, scores_in_chunks
from camfuse.compat.pytorch_grad_cam.scores import Target, check_targets, scores_of
from camfuse.replay import Replay, copied

_PLAIN = AblationLayer()  # it holds nothing beyond a call
_BLIND = (AblationLayer, AblationLayerVit)  # they do not look at what goes into the target layer


class AblationCAM(GradientFreeCAM):
    """Ablation-CAM (Desai and Ramaswamy, WACV 2020).

    Takes a pass for each ``batch_size`` channels of each layer and image. With an
    :class:`AblationLayer` or :class:`AblationLayerVit` itself, only what follows the target layer
    is computed if that is proven to be the same. Subclasses of them replace the target layer in the
    model during a call, which computes all that comes before.

    Args:
        model: As for :class:`BaseCAM`, likewise the next two.
        target_layers: Some of its modules.
        reshape_transform: From a layer's output to ``[B, C, *grid]``.
        ablation_layer: What takes the target layer's place; an :class:`AblationLayer` by default.
        batch_size: How many ablated copies of an image go through the model at once.
        ratio_channels_to_ablate: See :meth:`AblationLayer.activations_to_be_ablated`.
    """

    _method = "ablationcam"
    _hooks = (*BaseCAM._hooks, "assemble_ablation_scores")

    activations: Any
    """What the target layer returned, during a call."""

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        ablation_layer: AblationLayer | None = None,
        batch_size: int = 32,
        ratio_channels_to_ablate: float = 1.0,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform)
        self.batch_size = batch_size
        self.ablation_layer = _PLAIN if ablation_layer is None else ablation_layer
        self.ratio_channels_to_ablate = ratio_channels_to_ablate

    def save_activation(self, module: nn.Module, input: Any, output: Any) -> None:
        """A forward hook that keeps what the layer returned."""
        self.activations = copied(output)

    def assemble_ablation_scores(
        self,
        new_scores: Sequence[float] | Array,
        original_score: float,
        ablated_channels: Array,
        number_of_channels: int,
    ) -> Sequence[float] | Array:
        """The score without each channel; for channels that were not ablated, the original one."""
        scores = np.full(number_of_channels, original_score, np.float64)
        scores[ablated_channels] = new_scores
        return scores

    def get_cam_weights(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: Any,
        grads: Any,
    ) -> Array:
        """The part of the score that is lost without each channel ``[B, C]``, f32.

        Where the score is 0, the loss itself.
        """
        check_targets(targets, len(input_tensor))
        A = as_array(activations)
        weights = np.empty(A.shape[:2], np.float32)
        with self._shots(input_tensor, target_layer, A.shape[1]) as shots:
            for i, (target, shot) in enumerate(zip(targets, shots, strict=False)):
                original = float(scores_of([target], [shot.output])[0])
                channels, scores = self._ablated(A[i], target, shot)
                without = self.assemble_ablation_scores(scores, original, channels, A.shape[1])
                lost = original - np.asarray(without)
                weights[i] = lost if original == 0 else lost / original
        return weights

    def _native_image(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        A: Tensor,
        G: Tensor | None,
        eigen_smooth: bool,
    ) -> Tensor:
        weights = self.get_cam_weights(input_tensor, target_layer, targets, A, G)
        return weighted_map(A, torch.from_numpy(weights), eigen_smooth=eigen_smooth)

    def _ablated(self, A: Array, target: Target, shot: _Shot) -> tuple[Array, Array]:
        """Which channels of ``[C, h, w]`` were ablated, and the scores without them."""
        layer = self.ablation_layer
        channels = np.asarray(layer.activations_to_be_ablated(A, self.ratio_channels_to_ablate))
        if shot.silent is not None:
            channels = layer.indices = channels[~shot.silent[channels]]
        if not len(channels):
            return channels, np.empty(0)

        def outputs(start: int, stop: int) -> Any:
            layer.set_next_batch(
                input_batch_index=shot.index,
                activations=shot.activations,
                num_channels_to_ablate=stop - start,
            )
            found = shot.run(stop - start)
            layer.indices = layer.indices[stop - start :]
            return found

        scores = scores_in_chunks(len(channels), self.batch_size, target, outputs)
        return channels, as_array(scores)

    @contextlib.contextmanager
    def _shots(
        self, images: Tensor, target_layer: nn.Module, channels: int
    ) -> Iterator[Iterator[_Shot]]:
        """What is known of each image, one after another."""
        kind = type(self.ablation_layer)
        self.activations = None
        try:
            if kind in _BLIND:
                with many_passes(self.model, images, len(images) * channels, unlike=target_layer):
                    yield self._replayed(images, target_layer, channels)
            else:
                # Others may look at what goes into the target layer, which has to stay the same.
                with many_passes(self.model, images, 0):
                    yield self._replaced(images, target_layer)
        finally:
            self.activations = None
            if kind in _BLIND:
                self.ablation_layer.activations = None

    def _replayed(self, images: Tensor, target_layer: nn.Module, channels: int) -> Iterator[_Shot]:
        """By computing what follows the layer; ablation layers themselves know its output."""
        axis = 1 if type(self.ablation_layer) is AblationLayer else -1
        replay = Replay(self.model, target_layer)
        for i in range(len(images)):
            output, raw = replay.record(copies_of(images[i : i + 1]))
            if raw.ndim < 3 or raw.shape[axis] != channels:
                raise ValueError(
                    f"ablation_layer: expected one for the layer's output {tuple(raw.shape)} of "
                    f"{channels} channels, got {type(self.ablation_layer).__name__}; "
                    "AblationLayerVit is for channels that come last"
                )
            self.activations = raw
            silent = _silent(raw.movedim(axis, 1))
            yield _Shot(output[0], 0, raw, silent, lambda n: replay.run(self.ablation_layer(None)))

    def _replaced(self, images: Tensor, target_layer: nn.Module) -> Iterator[_Shot]:
        """By an ablation layer in the place of the target layer."""
        handle = target_layer.register_forward_hook(self.save_activation)
        try:
            outputs = self.model(images)
        finally:
            handle.remove()
        for i in range(len(images)):
            image = images[i : i + 1]

            def run(n: int, image: Tensor = image) -> Any:
                with _replacing(self.model, target_layer, self.ablation_layer):
                    return self.model(image.expand(n, *image.shape[1:]).clone())

            yield _Shot(outputs[i], i, self.activations, None, run)


@dataclass(frozen=True)
class _Shot:
    """What is known of an image.

    Attributes:
        output: The model's output for it.
        index: Its place among ``activations``.
        activations: What the target layer returned.
        silent: Channels without which nothing changes ``[C]``, as far as is known.
        run: The model's output for so many copies, which the ablation layer holds.
    """

    output: Any
    index: int
    activations: Any
    silent: Array | None
    run: Callable[[int], Any]


def _silent(raw: Tensor) -> Array:
    """Which channels of ``[1, C, ...]`` are already as ablation would leave them."""
    silent = (raw == 0).flatten(2).all(2)[0] & (raw.amin() == 0)
    found: Array = silent.numpy(force=True)
    return found


@contextlib.contextmanager
def _replacing(model: nn.Module, old: nn.Module, new: nn.Module) -> Iterator[None]:
    """Another module stands where one was inside."""
    places = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent._modules.items()
        if child is old
    ]
    if not places:
        raise ValueError(
            f"target_layers: expected modules inside the model, got a {type(old).__name__} that is "
            "none"
        )
    try:
        for parent, name in places:
            parent._modules[name] = new
        yield
    finally:
        for parent, name in places:
            parent._modules[name] = old
