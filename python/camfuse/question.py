"""What is asked of a model about photographs, whichever model it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from PIL import Image

from camfuse.amounts import parse_bytes
from camfuse.checks import expect, expect_whole
from camfuse.class_names import NamedTarget, check_target, names_of, resolve_names
from camfuse.collect import OnNonfinite
from camfuse.explain import layer_cams
from camfuse.layers import LayerSelection
from camfuse.methods import find_methods
from camfuse.methods.principal import eigen_smoothed
from camfuse.metrics.removal import PERCENTAGES, Removal
from camfuse.metrics.ybroad import Progress, ybroad
from camfuse.metrics.ybroad_result import YbRoad
from camfuse.models import LoadedModel
from camfuse.stack import CamStack
from camfuse.targets import count_targets
from camfuse.thinning import YBROAD, split_thinning


@dataclass(frozen=True, eq=False)
class Question:
    """Which maps are wanted.

    Attributes:
        method: The CAM method, or several.
        layers: Which layers; see :func:`camfuse.layer_cams`.
        target: The score to explain, or the name of a class.
        on_nonfinite: See :func:`camfuse.layer_cams`; likewise the rest.
        max_memory: How much memory a pass may need.
        aug_smooth: Whether maps are averaged over flips and brightness.
        eigen_smooth: Whether maps are the principal component of their terms.
        batch_size: How many perturbed samples go through the model at once.
        road: Whether every layer that is shown is scored by ybROAD, too; see
            :func:`camfuse.ybroad`.
        percentages: How much of an image is removed for that.
        seeds: Of the noise that is added for that; each costs its own passes.
    """

    method: str | Sequence[str] = "gradcam"
    layers: LayerSelection = "leaf"
    target: NamedTarget = None
    on_nonfinite: OnNonfinite = "raise"
    max_memory: int | str | None = None
    aug_smooth: bool = False
    eigen_smooth: bool = False
    batch_size: int = 32
    road: bool = False
    percentages: Sequence[float] = PERCENTAGES
    seeds: Sequence[int] = (0,)

    @property
    def methods(self) -> list[str]:
        """Names of the methods."""
        return [self.method] if isinstance(self.method, str) else list(self.method)

    @property
    def maps(self) -> int:
        """How many maps of each layer: methods times targets."""
        return len(self.methods) * count_targets(self.target)

    @property
    def series(self) -> tuple[str, ...]:
        """Names of the scores per layer that the maps will have."""
        return (YBROAD,) if self.road else ()

    def check(self, *, per_sample: bool = True) -> None:
        """Checks all that can be known without a model.

        Args:
            per_sample: Whether the target may hold a class for each photograph.

        Raises:
            TypeError: If an attribute is of the wrong type.
            ValueError: If one does not fit.
        """
        if self.on_nonfinite not in get_args(OnNonfinite):
            raise ValueError(f"on_nonfinite: expected 'raise' or 'skip', got {self.on_nonfinite!r}")
        expect("method", self.method, str, Sequence)
        for name in self.methods:
            expect("method", name, str)
        methods = find_methods(self.methods)
        if len(set(self.methods)) != len(self.methods):
            raise ValueError(f"method: expected each method once, got {', '.join(self.methods)}")
        expect("aug_smooth", self.aug_smooth, bool)
        expect("eigen_smooth", self.eigen_smooth, bool)
        expect("road", self.road, bool)
        Removal(self.percentages, seeds=self.seeds)
        if self.eigen_smooth:
            for one in methods:
                eigen_smoothed(one)  # or says why it has no terms
        expect_whole("batch_size", self.batch_size, at_least=1)
        split_thinning(self.layers)
        check_target(self.target, per_sample=per_sample)
        if self.max_memory is not None:
            parse_bytes("max_memory", self.max_memory)

    def ask(self, model: LoadedModel, photographs: Sequence[Image.Image]) -> CamStack:
        """The maps ``[R, T, B, h, w]`` of all photographs from one pass, with names."""
        stack = layer_cams(
            model.module,
            model.inputs(photographs),
            method=self.methods,
            layers=self.layers,
            target=resolve_names(self.target, model.classes),
            on_nonfinite=self.on_nonfinite,
            max_memory=self.max_memory,
            aug_smooth=self.aug_smooth,
            eigen_smooth=self.eigen_smooth,
            batch_size=self.batch_size,
        )
        return dataclasses.replace(
            stack, model=model.spec, target_names=names_of(stack.targets, model.classes)
        )

    def score(
        self,
        model: LoadedModel,
        photographs: Sequence[Image.Image],
        stack: CamStack,
        progress: Progress | None = None,
    ) -> YbRoad:
        """Scores the answer to :meth:`ask` by ybROAD, with probabilities unless of a function."""
        of_function = bool((stack.targets < 0).any())
        return ybroad(
            stack,
            model.module,
            model.inputs(photographs),
            target=resolve_names(self.target, model.classes) if of_function else None,
            percentages=self.percentages,
            output="logit" if of_function else "probability",
            seeds=self.seeds,
            batch_size=self.batch_size,
            progress=progress,
        )
