"""Tensors inside what modules take and return: tuples, lists, dicts, dataclasses, and so on."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in a structure, in order."""
    if isinstance(value, Tensor):
        yield value
    for _, item in _items(value):
        yield from tensors_in(item)


def maps_in(value: Any, batch: int) -> list[Tensor]:
    """The tensors among several that may have maps: floating, a batch axis, two axes or more."""
    found = [
        one
        for one in tensors_in(value)
        if one.is_floating_point() and one.ndim >= 3 and one.shape[0] == batch
    ]
    return list({id(one): one for one in found}.values())


def exchanged(value: Any, old: Tensor, new: Tensor) -> Any:
    """The structure with ``new`` wherever it holds ``old``; what does not is the same object."""
    if value is old:
        return new
    changes = {key: exchanged(item, old, new) for key, item in _items(value)}
    changes = {key: one for (key, item) in _items(value) if (one := changes[key]) is not item}
    if not changes:
        return value
    if isinstance(value, tuple):
        items = [changes.get(i, item) for i, item in _items(value)]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    result = copy.copy(value)
    for key, item in changes.items():
        if isinstance(value, list | Mapping):
            # Such as are both a dict and a dataclass keep their fields in step by themselves.
            result[key] = item
        else:
            object.__setattr__(result, key, item)
    return result


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return []
