"""Deep feature factorization: concepts that positions of a layer have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from camfuse.compat.optional import optional
from camfuse.compat.pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from camfuse.compat.pytorch_grad_cam.arrays import Array, as_array
from camfuse.compat.pytorch_grad_cam.utils.image import (
    create_labels_legend,
    scale_cam_image,
    show_factorization_on_image,
)


def dff(activations: Array, n_components: int = 5) -> tuple[Array, Array]:
    """Factorizes activations into concepts and where they are.

    Args:
        activations: ``[B, C, h, w]``; NaN count as 0.
        n_components: How many concepts, k.

    Returns:
        Concepts ``[C, k]`` and maps ``[B, k, h, w]``. Their product, less what the lowest values of
        the channels make of it, is near the activations.

    Raises:
        ImportError: If scikit-learn is missing.
    """
    decomposition = optional("sklearn.decomposition", "deep feature factorization")
    batch, channels, height, width = activations.shape
    rows = np.moveaxis(activations, 1, 0).reshape(channels, -1)
    rows = np.where(np.isnan(rows), rows.dtype.type(0), rows)
    lowest = rows.min(axis=1, keepdims=True)
    model = decomposition.NMF(n_components=n_components, init="random", random_state=0)
    concepts = model.fit_transform(rows - lowest) + lowest
    maps = model.components_.reshape(n_components, batch, height, width)
    return concepts, np.moveaxis(maps, 0, 1)


class DeepFeatureFactorization:
    """Deep feature factorization (Collins et al., ECCV 2018) of one layer.

    Args:
        model: Any module; it is in eval mode during calls alone.
        target_layer: One of its modules.
        reshape_transform: From the layer's output to ``[B, C, h, w]``.
        computation_on_concepts: What is to be said of concepts, such as by a classifier: from
            ``[k, C]`` to a tensor.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: nn.Module,
        reshape_transform: Callable[[Any], Tensor] | None = None,
        computation_on_concepts: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model = model
        self.computation_on_concepts = computation_on_concepts
        self.activations_and_grads = ActivationsAndGradients(
            model, [target_layer], reshape_transform
        )

    def __call__(
        self, input_tensor: Tensor, n_components: int = 16
    ) -> tuple[Array, list[Array]] | tuple[Array, list[Array], Array]:
        """Concepts of a batch of images, and where they are.

        Args:
            input_tensor: ``[B, C, H, W]``.
            n_components: How many concepts, k.

        Returns:
            Concepts ``[C, k]``; for each image maps ``[k, H, W]`` in [0, 1]; and the result of
            ``computation_on_concepts``, if there is one.

        Raises:
            ValueError: If the layer is not executed.
        """
        width, height = input_tensor.shape[3], input_tensor.shape[2]
        with torch.no_grad():
            self.activations_and_grads(input_tensor)
        found = self.activations_and_grads.activations
        if not found:
            raise ValueError("target_layer: expected a layer that the model executes")
        concepts, maps = dff(as_array(found[0]), n_components)
        scaled: list[Array] = [scale_cam_image(own, (width, height)) for own in maps]
        if self.computation_on_concepts is None:
            return concepts, scaled
        with torch.no_grad():
            rows = torch.from_numpy(np.float32(concepts.T))
            said = self.computation_on_concepts(_beside(rows, self.computation_on_concepts))
        return concepts, scaled, as_array(said)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.activations_and_grads.release()


def run_dff_on_image(
    model: nn.Module,
    target_layer: nn.Module,
    classifier: nn.Module,
    img_pil: Any,
    img_tensor: Tensor,
    reshape_transform: Callable[[Any], Tensor] | None = None,
    n_components: int = 5,
    top_k: int = 2,
) -> Array:
    """An image beside its concepts, which a classifier names.

    Args:
        model: A model with ``config.id2label``, as those of Hugging Face.
        target_layer: One of its modules.
        classifier: From concepts ``[k, C]`` to scores ``[k, classes]``.
        img_pil: The image, RGB, of PIL.
        img_tensor: The same for the model ``[C, H, W]``, of the same size.
        reshape_transform: From the layer's output to ``[B, C, h, w]``.
        n_components: How many concepts, k.
        top_k: How many names for each.

    Returns:
        ``[H, 3 W, 3]``, uint8: the image, the image with its concepts, and their names.
    """
    pixels = np.array(img_pil)
    config: Any = model.config
    factorize = DeepFeatureFactorization(model, target_layer, reshape_transform, classifier)
    _, maps, scores = factorize(img_tensor[None], n_components)  # type: ignore[misc]
    labels: Sequence[str] = create_labels_legend(
        torch.softmax(torch.from_numpy(scores), -1).numpy(), config.id2label, top_k
    )
    shown = show_factorization_on_image(
        pixels / 255, maps[0], image_weight=0.3, concept_labels=labels
    )
    return np.hstack([pixels, shown])


def _beside(rows: Tensor, computation: object) -> Tensor:
    """The rows where a module's parameters are."""
    if not isinstance(computation, nn.Module):
        return rows
    one = next(computation.parameters(), rows)
    return rows.to(one.device, one.dtype)
