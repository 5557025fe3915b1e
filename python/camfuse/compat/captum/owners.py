"""Which modules a callable runs, as far as that can be seen without running it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import nn


def modules_of(function: Callable[..., Any]) -> list[nn.Module]:
    """The modules that a callable is, is bound to, encloses, or refers to by a global name.

    Functions of its own file that it refers to are looked into as well.
    """
    found: dict[nn.Module, None] = {}
    seen: set[int] = set()
    waiting: list[object] = [function]
    while waiting:
        value = waiting.pop()
        if isinstance(value, nn.Module):
            found[value] = None
        elif id(value) not in seen:
            seen.add(id(value))
            waiting.extend(_held(value))
    return list(found)


def _held(value: object) -> Iterator[object]:
    if isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        yield value.__func__
        yield value.__self__
        yield from _modules_in(value.__self__)
    elif isinstance(value, FunctionType):
        yield from map(_content, value.__closure__ or ())
        for name in value.__code__.co_names:
            known = value.__globals__.get(name)
            own = isinstance(known, FunctionType) and known.__globals__ is value.__globals__
            if own or isinstance(known, nn.Module):
                yield known
    elif callable(value):
        yield from _modules_in(value)
        called = type(value).__call__
        if isinstance(called, FunctionType):
            yield called


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # assigned later
        return None


def _modules_in(value: object) -> Iterator[nn.Module]:
    for one in getattr(value, "__dict__", {}).values():
        if isinstance(one, nn.Module):
            yield one
