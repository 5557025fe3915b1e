"""What earlier passes taught about a model: how every module's output is laid out.

Following every operation costs a few milliseconds per pass, so it is done once per model and shapes
of its inputs. Later passes are held against what was found, and an output of another shape, or of a
call that was not seen, begins anew.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

from torch import Tensor, nn

from camfuse.axis_tracer import AxisTracer
from camfuse.inputs import Inputs, input_shapes
from camfuse.layouts import Layout, layout_of

_MOST_SHAPES = 16  # of inputs that are remembered, per model


class UnfamiliarError(Exception):
    """A module was called, or answered, as it had not been when layouts were followed."""


@dataclass
class KnownLayouts:
    """Of one model and one shape of its inputs.

    Attributes:
        known: Whether a whole forward pass was followed.
    """

    known: bool = False
    _found: dict[tuple[int, int], tuple[tuple[int, ...], Layout | str]] = field(
        default_factory=dict
    )

    def learn(self, module: int, call: int, output: Tensor, tracer: AxisTracer) -> None:
        """Notes the layout of an output of a module (by its number) and call."""
        shape = tuple(output.shape)
        layout = layout_of(tracer.axes_of(output), shape, tracer.batch, tracer.letters or "HW")
        self._found[module, call] = shape, layout

    def find(self, module: int, call: int, output: Tensor) -> Layout | str:
        """How an output is laid out, or why it has no map.

        Raises:
            UnfamiliarError: If the module did not put out this shape in this call.
        """
        shape, layout = self._found.get((module, call), (None, ""))
        if shape != tuple(output.shape):
            raise UnfamiliarError
        return layout

    def forget(self) -> None:
        """Begins anew."""
        self.known = False
        self._found.clear()


_by_model: weakref.WeakKeyDictionary[nn.Module, dict[object, KnownLayouts]] = (
    weakref.WeakKeyDictionary()
)


def layouts_of(model: nn.Module, inputs: Inputs) -> KnownLayouts:
    """What is known of ``model`` for inputs of these shapes."""
    by_shapes = _by_model.setdefault(model, {})
    shapes = input_shapes(inputs)
    found = by_shapes.pop(shapes, None) or KnownLayouts()
    by_shapes[shapes] = found  # the last used is last
    while len(by_shapes) > _MOST_SHAPES:
        del by_shapes[next(iter(by_shapes))]
    return found
