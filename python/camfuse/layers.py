"""Which modules of a model can be shown, and what they are called."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parallel import DataParallel, DistributedDataParallel

LayerSelection = str | nn.Module | Sequence[str | nn.Module]
"""``"leaf"``, ``"all"``, ``"conv"``, ``"type:CLASS"``, a name, a glob, a module; or several.

Where maps are made, ``"stage-ends"`` and ``"every:N"`` thin them out (:mod:`camfuse.thinning`).
"""

# Classes that libraries write themselves: identities, in eval mode at least.
_IDENTITIES = ("Identity", "StochasticDepth", "DropPath")

GROUPS = ("leaf", "all", "conv")
TYPE = "type:"


@dataclass(frozen=True)
class Selection:
    """The modules to capture.

    Attributes:
        names: Name of every selected module, in registration order.
        explicit: Modules that were selected by exact name or as an object: these are shown even
            where a group or a glob would leave them out (aliases, paddings, 1 x 1 maps).
        everything: Whether ``"all"`` was asked for, which shows aliases and paddings too.
    """

    names: dict[nn.Module, str]
    explicit: frozenset[nn.Module]
    everything: bool


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, out of DataParallel and DistributedDataParallel."""
    while isinstance(model, DataParallel | DistributedDataParallel):
        model = model.module
    return model


def layer_names(model: nn.Module) -> dict[nn.Module, str]:
    """Name of every module but the root (which counts only if it has no children).

    Names are those of ``named_modules()``, without the ``_orig_mod`` that ``torch.compile`` adds.
    """
    names = {
        module: ".".join(part for part in name.split(".") if part != "_orig_mod")
        for name, module in model.named_modules()
    }
    names = {module: name for module, name in names.items() if name}
    return names or {model: type(model).__name__}


def select_layers(model: nn.Module, layers: LayerSelection) -> Selection:
    """Resolves a selection against the modules of ``model``.

    Args:
        model: An unwrapped model.
        layers: Groups, names, globs (``*``, ``?``, ``[...]``), ``type:CLASS`` and modules; one or
            several. CLASS is the name of the module's class or of one it inherits from, or a glob.
            A text that names a group means the group, even where a layer has the same name.

    Raises:
        ValueError: If a name or glob matches nothing, a module is not part of the model, or the
            same layer is named twice.
    """
    names = layer_names(model)
    modules = {name: module for module, name in names.items()}
    if not isinstance(layers, str | nn.Module | Sequence):
        raise ValueError(f"layers: expected names or modules, got {layers!r}")
    wanted: Iterable[str | nn.Module] = (
        [layers] if isinstance(layers, str | nn.Module) else list(layers)
    )
    chosen: set[nn.Module] = set()
    explicit: set[nn.Module] = set()
    everything = False
    for item in wanted:
        if not isinstance(item, str | nn.Module):
            raise ValueError(f"layers: expected names and modules, got {item!r}")
        if isinstance(item, nn.Module):
            inner = unwrap(item)
            if inner not in names:
                raise ValueError(f"layers: this {type(item).__name__} is not part of the model")
            _add_once(inner, names, explicit)
        elif item in GROUPS:
            everything |= item == "all"
            chosen.update(module for module in names if _in_group(module, item))
        elif selects_several(item):
            matches = [module for module, name in names.items() if _matches(module, name, item)]
            if not matches:
                raise _unmatched(item, modules)
            chosen.update(matches)
        else:
            _add_once(_find(item, modules), names, explicit)
    if not chosen | explicit:
        raise ValueError("layers: expected at least one layer, got none")
    return Selection(
        names={m: name for m, name in names.items() if m in chosen or m in explicit},
        explicit=frozenset(explicit),
        everything=everything,
    )


def _add_once(module: nn.Module, names: dict[nn.Module, str], chosen: set[nn.Module]) -> None:
    if module in chosen:
        raise ValueError(f"layers: expected each layer once, got {names[module]!r} twice")
    chosen.add(module)


def selects_several(text: str) -> bool:
    """Whether a text selects layers by group, class or glob, instead of one by its name."""
    return text in GROUPS or text.startswith(TYPE) or any(one in text for one in "*?[")


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The layer of exactly this name; a leading ``module.`` of a wrapper is overlooked.

    Raises:
        ValueError: If there is none; the message suggests names that are close.
    """
    return _find(name, {name: module for module, name in layer_names(model).items()})


def _find(name: str, modules: dict[str, nn.Module]) -> nn.Module:
    for spelling in (name, name.removeprefix("module.")):
        if spelling in modules:
            return modules[spelling]
    raise _unmatched(name, modules)


def repeats_input(module: nn.Module) -> str | None:
    """Why the module's map only repeats that of its input, if it does: it pads, or does nothing."""
    if type(module).__module__ == nn.ZeroPad2d.__module__:
        return "padding"
    if isinstance(module, nn.Identity | _DropoutNd) or type(module).__name__ in _IDENTITIES:
        return "returns its input"
    return None


def _matches(module: nn.Module, name: str, pattern: str) -> bool:
    """Whether a glob fits the name, or a ``type:`` the class or one that it inherits from."""
    if not pattern.startswith(TYPE):
        return fnmatchcase(name, pattern)
    classes = type(module).__mro__[: type(module).__mro__.index(nn.Module)]
    return any(fnmatchcase(one.__name__, pattern.removeprefix(TYPE)) for one in classes)


def _in_group(module: nn.Module, group: str) -> bool:
    if group == "all":
        return True
    if group == "conv":
        return isinstance(module, _ConvNd)
    # A module with children and parameters of its own computes something itself: in
    # EfficientNet-Lite convolutions own a padding child, in ConvNeXt blocks own a layer scale.
    has_children = next(module.children(), None) is not None
    return not has_children or next(module.parameters(recurse=False), None) is not None


def _unmatched(item: str, modules: dict[str, nn.Module]) -> ValueError:
    known = (
        {TYPE + type(module).__name__ for module in modules.values()}
        if item.startswith(TYPE)
        else {*modules, *GROUPS}
    )
    close = difflib.get_close_matches(item, sorted(known), n=3)
    hint = f"; close: {', '.join(close)}" if close else ""
    return ValueError(f"layers: no layer of the model matches {item!r}{hint}")
