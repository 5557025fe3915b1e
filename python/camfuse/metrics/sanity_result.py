"""What a parameter randomization test found."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Grade = Literal["falls", "falls in part", "stays", "undefined"]

# Of the likeness that unrelated maps have not: up to how much is none kept, from where on is most.
_NONE, _MOST = 0.2, 0.5

_WORDS: Mapping[Grade, tuple[str, str]] = {  # of one layer, of several
    "falls": ("falls", "fall"),
    "falls in part": ("falls in part", "fall in part"),
    "stays": ("stays", "stay"),
    "undefined": ("cannot be compared", "cannot be compared"),
}


@dataclass(frozen=True)
class Verdict:
    """On the maps of one layer.

    Attributes:
        method: The method that made them.
        layer: The layer.
        final: Their likeness to the original ones once everything is random, sign left out: the
            mean over targets and samples.
        unrelated: The same of random maps that are as smooth.
        kept: How much of what lies between ``unrelated`` and 1 is left in ``final``.
        grade: ``"falls"`` (at most a fifth is kept), ``"falls in part"``, ``"stays"`` (half or
            more), or ``"undefined"``.
    """

    method: str
    layer: str
    final: float
    unrelated: float
    kept: float
    grade: Grade


@dataclass(frozen=True)
class Undefined:
    """A layer whose similarities at some stage are, at least in part, not defined, and why."""

    stage: int
    layer: str
    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class SanityResult:
    """How alike maps of a model and of its randomized copies are.

    Axes are ``S`` stages, ``L`` layers, ``R`` methods, ``T`` targets and ``B`` samples. All values
    are f64 on the CPU, by the name of the similarity; NaN where it is not defined.

    Attributes:
        methods: R names.
        layers: L names.
        stages: The modules that each stage made random, from the top of the model to the bottom.
        mode: Whether earlier stages' modules stayed random (``"cascading"``) or were given back
            (``"independent"``).
        seed: Of the random parameters.
        targets: Class indices ``[T, B]``; -1 where a function of the output was explained.
        similarity: ``[S, L, R, T, B]``: with the original maps, after each stage.
        final: ``[L, R, T, B]``: with the original maps, once everything is random.
        between: ``[L, R, T, B]``: of two models that are random throughout: what the image and the
            architecture alone account for.
        unrelated: ``[L, R, T, B]``: of two random maps as smooth as the original one, sign left
            out: the mean over several.
        undefined: Why values are missing.
        warnings: What the reader of the original maps should know.
    """

    methods: tuple[str, ...]
    layers: tuple[str, ...]
    stages: tuple[tuple[str, ...], ...]
    mode: str
    seed: int
    targets: Tensor
    similarity: Mapping[str, Tensor]
    final: Mapping[str, Tensor]
    between: Mapping[str, Tensor]
    unrelated: Mapping[str, Tensor]
    undefined: tuple[Undefined, ...] = ()
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return (
            f"SanityResult({len(self.stages)} stages, {self.mode}, {len(self.layers)} layers, "
            f"methods={list(self.methods)}, similarity={list(self.similarity)})"
        )

    def table(self, similarity: str | None = None, method: str | None = None) -> Tensor:
        """Means over targets and samples ``[S, L]``.

        Args:
            similarity: Which; the first by default.
            method: Which; the first by default.

        Raises:
            ValueError: If there is no such similarity or method.
        """
        values, r = self.similarity[self._named(similarity)], self._method(method)
        return values[:, :, r].flatten(2).nanmean(2)

    def verdicts(self, similarity: str | None = None) -> list[Verdict]:
        """One for each method and layer.

        Args:
            similarity: Which decides; the first by default.

        Raises:
            ValueError: If there is no such similarity.
        """
        name = self._named(similarity)
        final, unrelated = (
            one[name].abs().flatten(2).nanmean(2).tolist() for one in (self.final, self.unrelated)
        )
        return [
            _verdict(method, layer, final[i][r], unrelated[i][r])
            for r, method in enumerate(self.methods)
            for i, layer in enumerate(self.layers)
        ]

    def summary(self, similarity: str | None = None) -> str:
        """A sentence for each method, one a line.

        Raises:
            ValueError: If there is no such similarity.
        """
        verdicts = self.verdicts(similarity)
        return "\n".join(
            _sentence(method, [one for one in verdicts if one.method == method])
            for method in self.methods
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values, means over targets and samples; None for NaN."""
        means = {
            name: {
                "similarity": _plain(self.similarity[name].flatten(3).nanmean(3)),
                "final": _plain(self.final[name].flatten(2).nanmean(2)),
                "between": _plain(self.between[name].flatten(2).nanmean(2)),
                "unrelated": _plain(self.unrelated[name].flatten(2).nanmean(2)),
            }
            for name in self.similarity
        }
        return {
            "methods": list(self.methods),
            "layers": list(self.layers),
            "stages": [list(names) for names in self.stages],
            "mode": self.mode,
            "seed": self.seed,
            "targets": self.targets.tolist(),
            "similarities": means,
            "verdicts": [
                {key: _finite(value) for key, value in vars(one).items()} for one in self.verdicts()
            ],
            "summary": self.summary().splitlines(),
            "undefined": [vars(one) for one in self.undefined],
            "warnings": list(self.warnings),
        }

    def _named(self, similarity: str | None) -> str:
        name = next(iter(self.similarity)) if similarity is None else similarity
        if name not in self.similarity:
            known = ", ".join(self.similarity)
            raise ValueError(f"similarity: expected one of {known}, got {name!r}")
        return name

    def _method(self, method: str | None) -> int:
        if method is not None and method not in self.methods:
            known = ", ".join(self.methods)
            raise ValueError(f"method: expected one of {known}, got {method!r}")
        return 0 if method is None else self.methods.index(method)


def _verdict(method: str, layer: str, final: float, unrelated: float) -> Verdict:
    kept = (final - unrelated) / (1 - unrelated) if unrelated < 1 else math.nan
    grade: Grade = "falls in part"
    if math.isnan(kept):
        grade = "undefined"
    elif kept <= _NONE:
        grade = "falls"
    elif kept >= _MOST:
        grade = "stays"
    return Verdict(method, layer, final, unrelated, kept, grade)


def _sentence(method: str, verdicts: Sequence[Verdict]) -> str:
    defined = [one for one in verdicts if one.grade != "undefined"]
    if not defined:
        return f"{method}: no layer's maps can be compared, so nothing is known."
    middle = torch.tensor([[one.final, one.unrelated] for one in defined]).median(0).values
    grades = Counter(one.grade for one in verdicts)
    counts = ", ".join(
        f"{count} {words[count > 1]}" for grade, words in _WORDS.items() if (count := grades[grade])
    )
    if grades["stays"]:
        meaning = "maps that stay show the image or the architecture, not what was learned"
    elif grades["falls in part"]:
        meaning = "maps depend on the parameters, some of them only in part"
    else:
        meaning = "maps depend on the parameters, which does not make them right"
    return (
        f"{method}: of {len(verdicts)} layers, {counts}. Likeness with a random model: "
        f"{middle[0]:.2f} (median), of unrelated maps {middle[1]:.2f}; {meaning}."
    )


def _plain(values: Tensor) -> Any:
    if values.ndim:
        return [_plain(one) for one in values]
    return _finite(float(values))


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
