"""What is to be said of a map in numbers: is it faithful to the model, does it find the object.

The public names are imported when they are first used: those that accumulate over a data set are
``torchmetrics.Metric``, which the extra ``camfuse[metrics]`` installs.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camfuse.metrics.box_accuracy import MaxBoxAcc, MaxBoxAccV2, PxAP, TopLocalization
    from camfuse.metrics.inside import (
        effective_heat_ratio,
        energy_pointing_game,
        inside_outside,
        pointing_game,
    )
    from camfuse.metrics.localization import (
        BestMaskDice,
        BestMaskIoU,
        EffectiveHeatRatio,
        EnergyPointingGame,
        InsideOutside,
        MaskDice,
        MaskIoU,
        PointingGame,
    )
    from camfuse.metrics.overlaps import overlap
    from camfuse.metrics.randomization import sanity
    from camfuse.metrics.sanity_result import SanityResult
    from camfuse.metrics.wsol import average_precision, box_overlaps, pixel_counts, resized_boxes

__all__: list[str] = [
    "BestMaskDice",
    "BestMaskIoU",
    "EffectiveHeatRatio",
    "EnergyPointingGame",
    "InsideOutside",
    "MaskDice",
    "MaskIoU",
    "MaxBoxAcc",
    "MaxBoxAccV2",
    "PointingGame",
    "PxAP",
    "SanityResult",
    "TopLocalization",
    "average_precision",
    "box_overlaps",
    "effective_heat_ratio",
    "energy_pointing_game",
    "inside_outside",
    "overlap",
    "pixel_counts",
    "pointing_game",
    "resized_boxes",
    "sanity",
]

_NAMES: dict[str, list[str]] = {
    "box_accuracy": ["MaxBoxAcc", "MaxBoxAccV2", "PxAP", "TopLocalization"],
    "inside": [
        "effective_heat_ratio",
        "energy_pointing_game",
        "inside_outside",
        "pointing_game",
    ],
    "localization": [
        "BestMaskDice",
        "BestMaskIoU",
        "EffectiveHeatRatio",
        "EnergyPointingGame",
        "InsideOutside",
        "MaskDice",
        "MaskIoU",
        "PointingGame",
    ],
    "overlaps": ["overlap"],
    "randomization": ["sanity"],
    "sanity_result": ["SanityResult"],
    "wsol": ["average_precision", "box_overlaps", "pixel_counts", "resized_boxes"],
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
