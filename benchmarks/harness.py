"""Side-by-side timing: warm, in turn, as medians; ratios are those of each round's pair."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Work = Callable[[], object]

_ROUNDS, _LONG_ROUNDS, _QUICK_ROUNDS = 11, 7, 3
_LONG = 2  # seconds that warming a work up takes


@dataclass(frozen=True)
class Pair:
    """Two works side by side.

    Attributes:
        ours: Median seconds of one call.
        theirs: Likewise.
        ratio: Median over the rounds of theirs / ours.
        low: Their lower quartile.
        high: Their upper quartile.
    """

    ours: float
    theirs: float
    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Pair:
        """From the seconds of each round."""
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        low, high = spread(ratios)
        middle = statistics.median
        return cls(middle(ours), middle(theirs), middle(ratios), low, high)

    @property
    def inverse(self) -> Pair:
        """The sides exchanged."""
        return Pair(self.theirs, self.ours, 1 / self.ratio, 1 / self.high, 1 / self.low)

    def detail(self, ours: str = "ours", theirs: str = "theirs") -> dict[str, float]:
        """Both medians in milliseconds and the quartiles of the ratio, for a claim."""
        times = {f"{ours}_ms": 1e3 * self.ours, f"{theirs}_ms": 1e3 * self.theirs}
        return times | {"quartile_1": self.low, "quartile_3": self.high}


@dataclass(frozen=True)
class Claim:
    """One figure to reach.

    Attributes:
        name: What is divided by what, such as ``"maps of all layers / floor"``.
        case: Of which model, shape or batch; the cases of one name are one row of a table.
        ratio: The figure.
        goal: Such as ``"<= 1.3"`` or ``">= 2.5"``; ``None`` if it is told beside the others.
        detail: What else was measured.
    """

    name: str
    case: str
    ratio: float
    goal: str | None
    detail: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def shortfall(self) -> float:
        """How many times it would have to be better to reach the goal; at most 1 if it does."""
        if self.goal is None:
            return 0.0
        relation, bound = self.goal.split()
        if relation == "<=":
            return self.ratio / float(bound)
        return float(bound) / self.ratio if self.ratio > 0 else float("inf")

    @property
    def holds(self) -> bool:
        return self.shortfall <= 1


class NothingMeasured(Exception):  # noqa: N818 - no error: the machine lacks what is measured
    """This machine lacks what a benchmark is about; the message says what."""


def compare(ours: Work, theirs: Work, *, quick: bool, seconds: float = 0.02) -> Pair:
    """Times two works in turn; see :func:`alternate`."""
    return Pair.of(*alternate([ours, theirs], quick=quick, seconds=seconds))


def alternate(works: Sequence[Work], *, quick: bool, seconds: float = 0.02) -> list[list[float]]:
    """Times works in turn, after a warm-up.

    Args:
        works: What to time, side by side.
        quick: 3 rounds instead of 11, or instead of 7 of long work: a look, not a figure.
        seconds: A round calls each work for about so long, but at least once; 0 for long work.

    Returns:
        Seconds of one call: a list for each work, with an entry for each round.
    """
    start = time.perf_counter()
    calls = [_calls_per_round(work, seconds) for work in works]
    are_long = seconds == 0 or time.perf_counter() - start > _LONG * len(works)
    times: list[list[float]] = [[] for _ in works]
    for round_ in range(_QUICK_ROUNDS if quick else _LONG_ROUNDS if are_long else _ROUNDS):
        order = range(len(works))
        for side in order if round_ % 2 == 0 else reversed(order):  # none always comes first
            times[side].append(_time(works[side], calls[side]))
    return times


def against_one(ours: Work, theirs: Callable[[], float], *, quick: bool) -> Pair:
    """Times a work against another of minutes, which runs once, amid the rounds of ours.

    Args:
        ours: What to time; it is warmed up.
        theirs: Runs the other side and returns its seconds.
        quick: Fewer rounds of ours.
    """
    half = 1 if quick else _LONG_ROUNDS // 2 + 1
    ours()
    times = [_time(ours, 1) for _ in range(half)]
    other = theirs()
    times += [_time(ours, 1) for _ in range(half)]
    return Pair.of(times, [other] * len(times))


def once(work: Work) -> float:
    """Seconds of a single call, without warm-up."""
    return _time(work, 1)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The quartiles."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _time(work: Work, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - start) / calls


def _calls_per_round(work: Work, seconds: float) -> int:
    """How often a round calls the work, which has been warmed up by then."""
    work()
    if seconds == 0:
        return 1
    estimate = _time(work, 1)
    if estimate < seconds / 10:
        estimate = _time(work, 3)
    return max(1, min(5000, int(seconds / estimate)))
