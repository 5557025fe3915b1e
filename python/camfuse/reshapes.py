"""The caller's ``reshape=``, checked against what it is given."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from camfuse.captured import Reshape
from camfuse.layouts import plane


@dataclass(eq=False)
class CheckedReshape:
    """Folds one layer's output, and its gradient likewise.

    Args:
        reshape: The caller's function.
        layer: Name of the layer, for errors.
        batch: Number of samples.
    """

    reshape: Reshape
    layer: str
    batch: int
    shape: tuple[int, ...] | None = None

    def __call__(self, tensor: Tensor) -> Tensor:
        """``[B, C, rows, columns]`` of an output or of its gradient.

        Raises:
            ValueError: If the caller's function returns anything but ``[B, C, *grid]``, another
                shape for the gradient, or a tensor cut off from the graph.
        """
        source = f"the {tuple(tensor.shape)} of {self.layer}"
        try:
            found = self.reshape(tensor)
        except Exception as error:
            error.add_note(f"raised by reshape=, which was given {source}")
            raise
        if not isinstance(found, Tensor):
            raise ValueError(
                f"reshape: expected a tensor made of {source}, got {type(found).__name__}"
            )
        shape = tuple(found.shape)
        if self.shape is not None and shape != self.shape:
            raise ValueError(
                f"reshape: expected {self.shape} from the gradient of {self.layer}, "
                f"{tuple(tensor.shape)}, as from its output, got {shape}"
            )
        if not 3 <= found.ndim <= 5 or shape[0] != self.batch or not found.is_floating_point():
            raise ValueError(
                f"reshape: expected ({self.batch}, C, h, w) from {source}, got {shape}"
                + ("" if found.is_floating_point() else f" of {found.dtype}")
            )
        if tensor.requires_grad and not found.requires_grad:
            raise ValueError(
                f"reshape: expected a view or a differentiable function of {source}, got a tensor "
                "cut off from its graph"
            )
        self.shape = shape
        return plane(found)
