"""What a model was called with, so that it can be called again with other images."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from camfuse.structures import tensors_in


class Given:
    """The arguments of a pass.

    Attributes:
        image: A copy of the first tensor among them ``[B, ...]``, as the model may overwrite it.

    Args:
        args: Positional ones.
        kwargs: Keyword ones.

    Raises:
        ValueError: If there is no tensor with a batch axis among them.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = next((one for one in tensors_in([args, kwargs]) if one.ndim), None)
        if first is None:
            raise ValueError("inputs: expected a tensor with a batch axis, got none")
        self.image = first.detach().clone()
        self._arguments = tree_map(lambda one: self.image if one is first else one, (args, kwargs))

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
