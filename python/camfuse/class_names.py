"""Targets by name: from what users call a class to its index."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from numbers import Integral

import numpy as np
from torch import Tensor

from camfuse.class_targets import ClassTarget
from camfuse.targets import Each, Target

NamedTarget = Target | str
"""A target, or the name of a class, upper and lower case alike; within :class:`Each` and
:class:`camfuse.Contrast`, too."""


def check_target(target: object, *, per_sample: bool = True) -> None:
    """Checks what can be known of a target without the model's output.

    Args:
        target: What the caller gave.
        per_sample: Whether it may hold a class for each sample of the batch.

    Raises:
        TypeError: If it is no target at all.
        ValueError: If it is one that cannot be.
    """
    if isinstance(target, Each):
        if isinstance(target.targets, str) or not len(target.targets):
            raise ValueError(f"target: Each needs a sequence of targets, got {target.targets!r}")
        for one in target.targets:
            check_target(one, per_sample=per_sample)
    elif isinstance(target, ClassTarget):
        check_target(target.target, per_sample=per_sample)
    elif isinstance(target, Tensor | np.ndarray) or (
        isinstance(target, Sequence) and not isinstance(target, str)
    ):
        if any(isinstance(one, str) for one in target):
            raise ValueError(f"target: several names go into Each([...]), got {target!r}")
        if not per_sample:
            raise ValueError("target: expected the same for all photographs, got one for each")
    elif not (target is None or isinstance(target, str | Integral) or callable(target)):
        raise TypeError(f"target: expected a class, a name, a function or Each, got {target!r}")


def resolve_names(target: NamedTarget, classes: Sequence[str] | None) -> Target:
    """``target`` with the names of classes replaced by their indices.

    Raises:
        ValueError: If a name is not, or not only, that of one class.
    """
    if isinstance(target, str):
        return _class_index(target, classes)
    if isinstance(target, Each):
        return Each([resolve_names(one, classes) for one in target.targets])
    if isinstance(target, ClassTarget):
        named = target.with_indices(lambda name: _class_index(name, classes))
        return named.of(resolve_names(target.target, classes))
    return target


def names_of(indices: Tensor, classes: Sequence[str] | None) -> tuple[tuple[str, ...], ...]:
    """Names of classes ``[T, B]``; empty where there is none."""
    if not classes:
        return ()
    return tuple(
        tuple(classes[index] if 0 <= index < len(classes) else "" for index in row)
        for row in indices.tolist()
    )


def _class_index(name: str, classes: Sequence[str] | None) -> int:
    if not classes:
        raise ValueError(
            f"target: the model's class names are not known; expected an index, got {name!r}"
        )
    lowered = [one.lower() for one in classes]
    found = [index for index, one in enumerate(lowered) if one == name.lower()]
    if len(found) > 1:
        raise ValueError(
            f"target: {name!r} is the name of classes {', '.join(map(str, found))}; pass an index"
        )
    if not found:
        close = difflib.get_close_matches(name.lower(), lowered, n=3)
        names = ", ".join(classes[lowered.index(one)] for one in close)
        raise ValueError(
            f"target: no class is called {name!r}" + (f"; close: {names}" if close else "")
        )
    return found[0]
