"""What a model was called with, so that it can be called again with other images."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from camfuse.inputs import image_list
from camfuse.structures import tensors_in


class Given:
    """The arguments of a pass.

    Args:
        args: Positional ones.
        kwargs: Keyword ones.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = next((one for one in tensors_in([args, kwargs]) if one.ndim), None)
        alone = first is None or image_list([*args, *kwargs.values()]) is not None
        self._image = None if alone else first.detach().clone()  # type: ignore[union-attr]
        self._arguments = tree_map(lambda one: self._image if one is first else one, (args, kwargs))

    @property
    def image(self) -> Tensor:
        """A copy of the first tensor among them ``[B, ...]``, as the model may overwrite it.

        Raises:
            ValueError: If there is no batch, as where detectors take a list of images.
        """
        if self._image is None:
            raise ValueError("inputs: expected the model to take a batch of images, got none")
        return self._image

    def with_image(
        self, image: Tensor, samples: Tensor | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with another image.

        Args:
            image: ``[N, ...]``.
            samples: Which sample each of them was made of, to choose from other tensors that have
                a batch axis; by default they stay as they are.
        """
        batch = len(self.image)

        def exchange(value: Any) -> Any:
            if value is self.image:
                return image
            if not isinstance(value, Tensor):
                return value
            chosen = samples is not None and value.ndim and len(value) == batch
            return value[samples.to(value.device)] if chosen else value.clone()  # type: ignore[union-attr]

        args, kwargs = tree_map(exchange, self._arguments)
        return args, kwargs
