"""What is to be said of a map in numbers: is it faithful to the model, does it find the object.

The public names are imported when they are first used: those that accumulate over a data set are
``torchmetrics.Metric``, which the extra ``camfuse[metrics]`` installs.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camfuse.metrics.agreement import infidelity, sensitivity_n
    from camfuse.metrics.box_accuracy import MaxBoxAcc, MaxBoxAccV2, PxAP, TopLocalization
    from camfuse.metrics.complexities import complexity, entropy
    from camfuse.metrics.confidence import (
        Confidence,
        confidence_drop,
        confidence_gain,
        confidence_increase,
        masked_confidence,
    )
    from camfuse.metrics.consistency import adcc, coherency
    from camfuse.metrics.curves import (
        Curve,
        deletion_auc,
        deletion_curve,
        insertion_auc,
        insertion_curve,
    )
    from camfuse.metrics.faithfulness import (
        ADCC,
        AverageDrop,
        AverageGain,
        Coherency,
        Complexity,
        Deletion,
        Entropy,
        IncreaseInConfidence,
        Infidelity,
        Insertion,
        SensitivityN,
    )
    from camfuse.metrics.inside import (
        effective_heat_ratio,
        energy_pointing_game,
        inside_outside,
        pointing_game,
    )
    from camfuse.metrics.layer_roads import YbRoad, ybroad
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
    from camfuse.metrics.perturbations import GaussianNoise, RandomPixels, RemovedSquare
    from camfuse.metrics.randomization import sanity
    from camfuse.metrics.road_score import Road, road
    from camfuse.metrics.sanity_result import SanityResult
    from camfuse.metrics.wsol import average_precision, box_overlaps, pixel_counts, resized_boxes

__all__ = [
    "ADCC",
    "AverageDrop",
    "AverageGain",
    "BestMaskDice",
    "BestMaskIoU",
    "Coherency",
    "Complexity",
    "Confidence",
    "Curve",
    "Deletion",
    "EffectiveHeatRatio",
    "EnergyPointingGame",
    "Entropy",
    "GaussianNoise",
    "IncreaseInConfidence",
    "Infidelity",
    "Insertion",
    "InsideOutside",
    "MaskDice",
    "MaskIoU",
    "MaxBoxAcc",
    "MaxBoxAccV2",
    "PointingGame",
    "PxAP",
    "RandomPixels",
    "RemovedSquare",
    "Road",
    "SanityResult",
    "SensitivityN",
    "TopLocalization",
    "YbRoad",
    "adcc",
    "average_precision",
    "box_overlaps",
    "coherency",
    "complexity",
    "confidence_drop",
    "confidence_gain",
    "confidence_increase",
    "deletion_auc",
    "deletion_curve",
    "effective_heat_ratio",
    "energy_pointing_game",
    "entropy",
    "infidelity",
    "insertion_auc",
    "insertion_curve",
    "inside_outside",
    "masked_confidence",
    "overlap",
    "pixel_counts",
    "pointing_game",
    "resized_boxes",
    "road",
    "sanity",
    "sensitivity_n",
    "ybroad",
]

_NAMES: dict[str, list[str]] = {
    "agreement": ["infidelity", "sensitivity_n"],
    "box_accuracy": ["MaxBoxAcc", "MaxBoxAccV2", "PxAP", "TopLocalization"],
    "complexities": ["complexity", "entropy"],
    "confidence": [
        "Confidence",
        "confidence_drop",
        "confidence_gain",
        "confidence_increase",
        "masked_confidence",
    ],
    "consistency": ["adcc", "coherency"],
    "curves": ["Curve", "deletion_auc", "deletion_curve", "insertion_auc", "insertion_curve"],
    "faithfulness": [
        "ADCC",
        "AverageDrop",
        "AverageGain",
        "Coherency",
        "Complexity",
        "Deletion",
        "Entropy",
        "IncreaseInConfidence",
        "Infidelity",
        "Insertion",
        "SensitivityN",
    ],
    "inside": ["effective_heat_ratio", "energy_pointing_game", "inside_outside", "pointing_game"],
    "layer_roads": ["YbRoad", "ybroad"],
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
    "perturbations": ["GaussianNoise", "RandomPixels", "RemovedSquare"],
    "randomization": ["sanity"],
    "road_score": ["Road", "road"],
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
