"""What is to be said of a map in numbers: is it faithful to the model, does it find the object.

Where what is:

- ROAD: ``road`` (a map per image), ``ybroad`` and ``ybroad_result`` (all layers); below them
  ``removal`` (what is done to images), ``ranking`` (which pixels go), ``control_maps`` (random
  ones, edges).
- Faithfulness: ``curves`` (deletion, insertion), ``confidence`` (drop, increase, gain),
  ``agreement`` (sensitivity-n, infidelity), ``coherency`` (and ADCC), ``complexity`` (and entropy);
  means over a data set in ``faithfulness``; below them ``perturbations``, ``replacement``,
  ``correlation``.
- Localization: ``inside`` (heat on the object), ``overlap`` (IoU, Dice); means over a data set in
  ``localization``; ``wsol`` (boxes and pixels), over a data set in ``box_accuracy``; below them
  ``regions``, ``contours``, ``histograms``.
- Sanity check: ``sanity``, ``sanity_result``; below them ``reinitialize`` (random parameters),
  ``comparison`` and ``similarity`` (of maps).
- For all: ``maps`` (checked, upsampled), ``scoring`` and ``copies`` (passes over changed images),
  ``accumulate`` (what metrics over a data set share), ``plots``.

The public names are imported when they are first used: those that accumulate over a data set are
``torchmetrics.Metric``, which the extra ``camfuse[metrics]`` installs.
"""

import sys as _sys
from typing import TYPE_CHECKING

from camfuse.lazy import LazyPackage as _LazyPackage

if TYPE_CHECKING:
    from camfuse.metrics.agreement import infidelity, sensitivity_n
    from camfuse.metrics.box_accuracy import MaxBoxAcc, MaxBoxAccV2, PxAP, TopLocalization
    from camfuse.metrics.coherency import adcc, coherency
    from camfuse.metrics.complexity import complexity, entropy
    from camfuse.metrics.confidence import (
        Confidence,
        confidence_drop,
        confidence_gain,
        confidence_increase,
        masked_confidence,
    )
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
    from camfuse.metrics.overlap import Overlap, overlap
    from camfuse.metrics.perturbations import GaussianNoise, RandomPixels, RemovedSquare
    from camfuse.metrics.road import Road, road
    from camfuse.metrics.sanity import sanity
    from camfuse.metrics.sanity_result import SanityResult
    from camfuse.metrics.wsol import (
        BoxOverlaps,
        average_precision,
        box_overlaps,
        pixel_counts,
        resized_boxes,
    )
    from camfuse.metrics.ybroad import ybroad
    from camfuse.metrics.ybroad_result import YbRoad

__all__ = [
    "ADCC",
    "AverageDrop",
    "AverageGain",
    "BestMaskDice",
    "BestMaskIoU",
    "BoxOverlaps",
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
    "Overlap",
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

_NAMES = {
    "agreement": ["infidelity", "sensitivity_n"],
    "box_accuracy": ["MaxBoxAcc", "MaxBoxAccV2", "PxAP", "TopLocalization"],
    "coherency": ["adcc", "coherency"],
    "complexity": ["complexity", "entropy"],
    "confidence": [
        *("Confidence", "confidence_drop", "confidence_gain", "confidence_increase"),
        "masked_confidence",
    ],
    "curves": ["Curve", "deletion_auc", "deletion_curve", "insertion_auc", "insertion_curve"],
    "faithfulness": [
        *("ADCC", "AverageDrop", "AverageGain", "Coherency", "Complexity", "Deletion", "Entropy"),
        *("IncreaseInConfidence", "Infidelity", "Insertion", "SensitivityN"),
    ],
    "inside": ["effective_heat_ratio", "energy_pointing_game", "inside_outside", "pointing_game"],
    "localization": [
        *("BestMaskDice", "BestMaskIoU", "EffectiveHeatRatio", "EnergyPointingGame"),
        *("InsideOutside", "MaskDice", "MaskIoU", "PointingGame"),
    ],
    "overlap": ["Overlap", "overlap"],
    "perturbations": ["GaussianNoise", "RandomPixels", "RemovedSquare"],
    "road": ["Road", "road"],
    "sanity": ["sanity"],
    "sanity_result": ["SanityResult"],
    "wsol": ["BoxOverlaps", "average_precision", "box_overlaps", "pixel_counts", "resized_boxes"],
    "ybroad": ["ybroad"],
    "ybroad_result": ["YbRoad"],
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

_sys.modules[__name__].__class__ = _LazyPackage
