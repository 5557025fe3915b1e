"""Metrics of faithfulness and complexity over a data set, in the manner of torchmetrics.

Each takes batches by ``update``, in one process or several, and computes the mean over all images
of the function it names, whose options and errors it shares. The model is given to ``update``
rather than kept. Named arguments let all of them stand in one ``torchmetrics.MetricCollection``:
``metrics.update(model=model, images=images, maps=maps)``. Keyword arguments of
:class:`torchmetrics.Metric`, such as ``process_group``, go to it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camfuse.metrics.accumulate import Mean
from camfuse.metrics.agreement import infidelity, sensitivity_n
from camfuse.metrics.coherency import Explain, adcc, coherency
from camfuse.metrics.complexity import complexity, entropy
from camfuse.metrics.confidence import masked_confidence
from camfuse.metrics.curves import deletion_auc, insertion_auc
from camfuse.metrics.perturbations import Perturbation
from camfuse.metrics.replacement import Baseline
from camfuse.metrics.scoring import Output
from camfuse.targets import Target


class _OfModel(Mean):
    def update(self, model: nn.Module, images: Tensor, maps: Tensor, target: Target = None) -> None:
        """Takes a batch in: a model, images ``[B, C, H, W]``, maps ``[B, h, w]``, one target."""
        self.add(self.of(model, images, maps, target=target))


class _OfMaps(Mean):
    def update(self, maps: Tensor) -> None:
        """Takes a batch of maps ``[B, h, w]`` in."""
        self.add(self.of(maps))


class Deletion(_OfModel):
    """Mean of :func:`camfuse.metrics.deletion_auc`; lower is better."""

    higher_is_better = False

    def __init__(
        self,
        *,
        steps: int = 50,
        baseline: Baseline = "zero",
        output: Output = "probability",
        batch_size: int = 32,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        of = partial(
            deletion_auc,
            steps=steps,
            baseline=baseline,
            output=output,
            batch_size=batch_size,
            seed=seed,
        )
        super().__init__(of, **kwargs)


class Insertion(_OfModel):
    """Mean of :func:`camfuse.metrics.insertion_auc`; higher is better."""

    def __init__(
        self,
        *,
        steps: int = 50,
        baseline: Baseline = "blur",
        output: Output = "probability",
        batch_size: int = 32,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        of = partial(
            insertion_auc,
            steps=steps,
            baseline=baseline,
            output=output,
            batch_size=batch_size,
            seed=seed,
        )
        super().__init__(of, **kwargs)


class _OfConfidence(_OfModel):
    """All three means, one of which is computed: in a collection they share their passes."""

    _kind: int

    def __init__(
        self, *, output: Output = "probability", batch_size: int = 32, **kwargs: Any
    ) -> None:
        of = partial(_drop_increase_gain, output=output, batch_size=batch_size)
        super().__init__(of, shape=(3,), **kwargs)

    def compute(self) -> Tensor:
        """The mean over all images so far, in [0, 1], f64; NaN before the first."""
        return super().compute()[self._kind]


class AverageDrop(_OfConfidence):
    """Mean of :func:`camfuse.metrics.confidence_drop`; lower is better."""

    higher_is_better = False
    _kind = 0


class IncreaseInConfidence(_OfConfidence):
    """Mean of :func:`camfuse.metrics.confidence_increase`; higher is better."""

    _kind = 1


class AverageGain(_OfConfidence):
    """Mean of :func:`camfuse.metrics.confidence_gain`; higher is better."""

    _kind = 2


class SensitivityN(_OfModel):
    """Mean of :func:`camfuse.metrics.sensitivity_n`; higher is better."""

    def __init__(
        self,
        *,
        n: int,
        subsets: int = 100,
        baseline: Baseline = "zero",
        output: Output = "logit",
        batch_size: int = 32,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        of = partial(
            sensitivity_n,
            n=n,
            subsets=subsets,
            baseline=baseline,
            output=output,
            batch_size=batch_size,
            seed=seed,
        )
        super().__init__(of, **kwargs)


class Infidelity(_OfModel):
    """Mean of :func:`camfuse.metrics.infidelity`; lower is better."""

    higher_is_better = False

    def __init__(
        self,
        *,
        perturbation: Perturbation | None = None,
        draws: int = 100,
        scaled: bool = True,
        baseline: Baseline = "zero",
        output: Output = "logit",
        batch_size: int = 32,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        of = partial(
            infidelity,
            perturbation=perturbation,
            draws=draws,
            scaled=scaled,
            baseline=baseline,
            output=output,
            batch_size=batch_size,
            seed=seed,
        )
        super().__init__(of, **kwargs)


class Complexity(_OfMaps):
    """Mean of :func:`camfuse.metrics.complexity`; lower is better."""

    higher_is_better = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(partial(complexity), **kwargs)


class Entropy(_OfMaps):
    """Mean of :func:`camfuse.metrics.entropy`; lower is better."""

    higher_is_better = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(partial(entropy), **kwargs)


class Coherency(_OfModel):
    """Mean of :func:`camfuse.metrics.coherency`; higher is better."""

    def __init__(
        self,
        explain: Explain,
        *,
        output: Output = "probability",
        batch_size: int = 32,
        **kwargs: Any,
    ) -> None:
        of = partial(coherency, explain=explain, output=output, batch_size=batch_size)
        super().__init__(of, **kwargs)


class ADCC(_OfModel):
    """Mean of :func:`camfuse.metrics.adcc`; higher is better."""

    def __init__(
        self,
        explain: Explain,
        *,
        output: Output = "probability",
        batch_size: int = 32,
        **kwargs: Any,
    ) -> None:
        of = partial(adcc, explain=explain, output=output, batch_size=batch_size)
        super().__init__(of, **kwargs)


def _drop_increase_gain(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target,
    *,
    output: Output,
    batch_size: int,
) -> Tensor:
    found = masked_confidence(model, images, maps, target, output=output, batch_size=batch_size)
    return torch.stack([found.drop, found.increase, found.gain], 1)
