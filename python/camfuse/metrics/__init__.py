"""What is to be said of a map in numbers: is it faithful to the model, does it find the object.

The public names are imported when they are first used: those that accumulate over a data set are
``torchmetrics.Metric``, which the extra ``camfuse[metrics]`` installs.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camfuse.metrics.layer_roads import YbRoad, ybroad
    from camfuse.metrics.road_score import Road, road

__all__ = ["Road", "YbRoad", "road", "ybroad"]

_NAMES: dict[str, list[str]] = {
    "layer_roads": ["YbRoad", "ybroad"],
    "road_score": ["Road", "road"],
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
