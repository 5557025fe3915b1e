"""What the main job gives back: the video, the maps behind it, and a report of both."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from camfuse.images import Preprocessing
from camfuse.metrics.ybroad_result import YbRoad
from camfuse.models import LoadedModel
from camfuse.question import Question
from camfuse.render_video import Video
from camfuse.stack import CamStack
from camfuse.style import VideoStyle
from camfuse.views import View, choose_views


@dataclass(frozen=True, eq=False)
class Explained:
    """One model's maps of one photograph.

    Attributes:
        model: The model's spec; the name of its class where it was given as a module.
        weights: Which weights it has, in words.
        preprocessing: What was done to the photograph before the model saw it.
        stack: All captured maps.
        shown: Those that became frames.
        aug_smooth: Whether maps are averaged over flips and brightness.
        eigen_smooth: Whether maps are the principal component of their terms.
        road: ybROAD of the layers, if that was asked for.
    """

    model: str
    weights: str
    preprocessing: Preprocessing
    stack: CamStack
    shown: CamStack
    aug_smooth: bool = False
    eigen_smooth: bool = False
    road: YbRoad | None = None

    @classmethod
    def of(
        cls,
        model: LoadedModel,
        stack: CamStack,
        style: VideoStyle,
        question: Question,
        road: YbRoad | None = None,
    ) -> Explained:
        """What ``stack``, the answer to a question, tells of ``model`` in a video of this style."""
        stack = stack if road is None else road.stack
        return cls(
            model=model.spec,
            weights=model.weights,
            preprocessing=model.preprocessing,
            stack=stack,
            shown=style.shown(stack),
            aug_smooth=question.aug_smooth,
            eigen_smooth=question.eigen_smooth,
            road=road,
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the maps, as plain JSON values."""
        report = {
            "model": self.model,
            "weights": self.weights,
            "layers": [
                {
                    "name": layer.name,
                    "type": layer.type,
                    "shape": list(layer.shape),
                    "degenerate": bool(layer.degenerate),
                }
                for layer in self.shown.layers
            ],
            "skipped": [
                {"name": one.name, "type": one.type, "reason": one.reason}
                for one in self.stack.skipped
            ],
            "warnings": list(self.stack.warnings),
            "preprocessing": self.preprocessing.as_dict(),
            "aug_smooth": self.aug_smooth,
            "eigen_smooth": self.eigen_smooth,
        }
        if self.road is not None:
            report["ybroad"] = self.road.to_dict()
        return report


def told_apart(explained: Sequence[Explained]) -> list[Explained]:
    """The same, where models of one name are called after their weights too."""
    times = Counter(one.model for one in explained)

    def renamed(one: Explained) -> Explained:
        if times[one.model] == 1:
            return one
        name = f"{one.model}, {Path(one.weights).name}"
        return replace(
            one, stack=replace(one.stack, model=name), shown=replace(one.shown, model=name)
        )

    return [renamed(one) for one in explained]


@dataclass(frozen=True, eq=False)
class AnimationResult:
    """A finished video and what it shows.

    Attributes:
        video: The file.
        explained: The maps of each model; one, unless models are compared.
        style: How the video looks.
        seconds: Wall time by stage.
        bytes_written: Size of the video, and of the maps if they were saved.
    """

    video: Video
    explained: tuple[Explained, ...]
    style: VideoStyle
    seconds: dict[str, float]
    bytes_written: int

    @property
    def path(self) -> Path:
        """The video."""
        return self.video.path

    @property
    def frames(self) -> int:
        """Number of frames: one per shown layer, of the deepest model if there are several."""
        return self.video.frames

    @property
    def stack(self) -> CamStack:
        """All captured maps of the (first) model."""
        return self.explained[0].stack

    def to_dict(self) -> dict[str, Any]:
        """Everything but the maps, as plain JSON values; what ``camfuse animate --json`` prints.

        ``None`` stands for a number that is not finite. Where methods, targets or models are
        compared, ``compared`` lists what each column shows, and ``models`` what holds for each
        model; the rest tells of the first of them.
        """
        views = choose_views([one.stack for one in self.explained])
        columns = [
            {
                "model": self.explained[one.model].model,
                "weights": self.explained[one.model].weights,
                "method": one.method_name,
                "target": target_report(one),
            }
            for one in views
        ]
        report = {
            "path": str(self.path),
            "frames": self.frames,
            **self.explained[0].to_dict(),
            **columns[0],
            "normalize": self.style.normalize,
            "seconds": self.seconds,
            "bytes_written": self.bytes_written,
        }
        if len(columns) > 1:
            report["compared"] = columns
        if len(self.explained) > 1:
            report["models"] = [one.to_dict() for one in self.explained]
        return report

    def _repr_html_(self) -> str:
        """The video itself, for notebooks."""
        return self.video._repr_html_()


def target_report(view: View) -> dict[str, Any]:
    """What was explained, as plain JSON values; ``None`` for what is not known or not finite."""
    stack, at = view.stack, (view.target, view.sample)
    index = int(stack.targets[at])
    return {
        "index": index if index >= 0 else None,
        "name": stack.target_name(*at),
        "probability": _finite(stack.probabilities[at]),
        "score": _finite(stack.scores[at]),
    }


def _finite(value: torch.Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
