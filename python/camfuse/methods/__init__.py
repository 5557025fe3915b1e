"""The CAM methods: one registry, one file per family."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from camfuse.methods.attention import ATTENTION_METHODS
from camfuse.methods.base import Method
from camfuse.methods.classic import CLASSIC_METHODS
from camfuse.methods.contrast import CONTRAST_METHODS
from camfuse.methods.features import FEATURE_METHODS
from camfuse.methods.fullgrad import FULL_GRADIENT_METHODS
from camfuse.methods.gradient import GRADIENT_METHODS
from camfuse.methods.kernel import KERNEL_METHODS
from camfuse.methods.perturbation import PERTURBATION_METHODS
from camfuse.methods.principal import PRINCIPAL_METHODS
from camfuse.methods.random import RANDOM_METHODS
from camfuse.methods.shapley import SHAPLEY_METHODS
from camfuse.methods.smooth import SMOOTH_METHODS
from camfuse.methods.whole import WHOLE_METHODS

__all__ = ["METHODS", "Method", "check_differentiable", "find_method", "find_methods"]

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *GRADIENT_METHODS,
        *SHAPLEY_METHODS,
        *SMOOTH_METHODS,
        *CONTRAST_METHODS,
        *CLASSIC_METHODS,
        *ATTENTION_METHODS,
        *FULL_GRADIENT_METHODS,
        *PRINCIPAL_METHODS,
        *KERNEL_METHODS,
        *FEATURE_METHODS,
        *PERTURBATION_METHODS,
        *RANDOM_METHODS,
        *WHOLE_METHODS,
    )
}


def find_method(name: str) -> Method:
    """The method of this name.

    Raises:
        ValueError: If there is none, the message lists the names; or it has no map per layer.
    """
    if name in METHODS:
        method = METHODS[name]
        if method.whole:
            raise ValueError(f"method: {name} has no map per layer: {method.whole}")
        return method
    names = [method.name for method in METHODS.values() if not method.whole]
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"method: expected one of {', '.join(names)}, got {name!r}{hint}")


def find_methods(method: str | Sequence[str]) -> list[Method]:
    """The methods of one or several names.

    Raises:
        ValueError: If one of them does not exist or has no map per layer, or there is none.
    """
    names = [method] if isinstance(method, str) or not isinstance(method, Sequence) else method
    methods = [find_method(name) for name in names]
    if not methods:
        raise ValueError("method: expected at least one method, got none")
    return methods


def check_differentiable(methods: Sequence[Method]) -> None:
    """Checks that the maps of all methods can stand in a loss.

    Raises:
        ValueError: If one cannot.
    """
    for method in methods:
        if not method.differentiable:
            able = [one.name for one in METHODS.values() if one.differentiable and not one.whole]
            raise ValueError(
                f"create_graph: the maps of {method.name} cannot be differentiated; those of "
                f"{', '.join(able)} can"
            )
