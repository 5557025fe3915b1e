"""Layers of maps that are there already, chosen by the texts that choose layers of a model."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from camfuse.layers import TYPE
from camfuse.stack import CamStack, LayerInfo
from camfuse.thinning import split_thinning, thin_out


def choose_layers(stack: CamStack, layers: Sequence[str]) -> CamStack:
    """The layers of ``stack`` that are asked for, all of them to be shown.

    Args:
        stack: The maps.
        layers: Names; globs and ``type:CLASS`` (the class as saved, or a glob), which leave out the
            layers that are not shown; ``"stage-ends"`` and ``"every:N"``, which thin out what the
            others choose, or else all that is shown.

    Raises:
        ValueError: If one matches nothing, or there is none.
    """
    steps = split_thinning(layers)[1]
    wanted = [item for item in layers if item not in steps]
    if not wanted + steps:
        raise ValueError("layers: expected at least one layer, got none")
    chosen = set() if wanted else {layer for layer in stack.layers if layer.shown}
    for item in wanted:
        matches = {layer for layer in stack.layers if _matches(layer, item)}
        if not matches:
            raise _unmatched(item, stack)
        chosen |= matches
    names = [layer.name for layer in stack.layers if layer in chosen]
    kept = stack.select(layers=names)
    shown = dataclasses.replace(
        kept,
        layers=tuple(dataclasses.replace(layer, shown=True) for layer in kept.layers),
        skipped=tuple(one for one in kept.skipped if one.name not in names),
    )
    return thin_out(shown, steps)


def _matches(layer: LayerInfo, item: str) -> bool:
    if layer.name == item:
        return True
    if item.startswith(TYPE):
        return layer.shown and fnmatchcase(layer.type, item.removeprefix(TYPE))
    return layer.shown and fnmatchcase(layer.name, item)


def _unmatched(item: str, stack: CamStack) -> ValueError:
    reason = next((one.reason for one in stack.skipped if one.name == item), None)
    if reason:
        return ValueError(f"layers: {item!r} was not saved: {reason}")
    known = (
        {TYPE + layer.type for layer in stack.layers} if item.startswith(TYPE) else set(stack.names)
    )
    close = difflib.get_close_matches(item, sorted(known), n=3)
    hint = f"; close: {', '.join(close)}" if close else ""
    return ValueError(f"layers: no saved layer matches {item!r}{hint}")
