"""Layers of a model, found and exchanged."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import nn


def replace_layer_recursive(model: nn.Module, old_layer: nn.Module, new_layer: nn.Module) -> bool:
    """Puts a layer in the place of another, the first one that is found.

    Returns:
        Whether ``old_layer`` was found anywhere in the model.
    """
    for parent in model.modules():
        for name, layer in parent._modules.items():
            if layer is old_layer:
                parent._modules[name] = new_layer
                return True
    return False


def replace_all_layer_type_recursive(
    model: nn.Module,
    old_layer_type: type[nn.Module] | tuple[type[nn.Module], ...],
    new_layer: nn.Module,
) -> None:
    """Puts one layer in the place of all that are of a type or a subclass of it.

    What is inside a replaced layer, or inside the new one, stays as it is.
    """
    for name, layer in model._modules.items():
        if isinstance(layer, old_layer_type):
            model._modules[name] = new_layer
        elif layer is not None and layer is not new_layer:
            replace_all_layer_type_recursive(layer, old_layer_type, new_layer)


def find_layer_types_recursive(
    model: nn.Module, layer_types: Collection[type[nn.Module]]
) -> list[nn.Module]:
    """Layers inside a model that are exactly of one of some types, subclasses left out."""
    return find_layer_predicate_recursive(model, lambda layer: type(layer) in layer_types)


def find_layer_predicate_recursive(
    model: nn.Module, predicate: Callable[[nn.Module], bool]
) -> list[nn.Module]:
    """Layers inside a model that satisfy a predicate, each once, parents before children."""
    return [layer for layer in model.modules() if layer is not model and predicate(layer)]
