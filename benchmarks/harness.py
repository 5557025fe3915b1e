"""Side-by-side timing: alternating rounds, medians, and the ratio of each pair of rounds."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

Work = Callable[[], object]


@dataclass(frozen=True)
class Pair:
    """Medians of both sides in seconds, and the ratio theirs / ours, round by round."""

    ours: float
    theirs: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Claim:
    """One figure to reach. ``goal`` reads like ``"<= 1.3"`` or ``">= 2.5"``."""

    name: str
    ratio: float
    goal: str
    detail: dict[str, float] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        relation, bound = self.goal.split()
        return self.ratio <= float(bound) if relation == "<=" else self.ratio >= float(bound)


def compare(ours: Work, theirs: Work, rounds: int = 9, seconds: float = 0.02) -> Pair:
    """Times both in turn, in rounds of about ``seconds`` each, after a warm-up.

    With ``seconds`` 0, for work that takes long: one call per round, and no warm-up.
    """
    calls = [_calls_per_round(work, seconds) for work in (ours, theirs)]
    times: list[tuple[float, float]] = []
    for round_ in range(rounds):
        order = (
            (0, 1) if round_ % 2 == 0 else (1, 0)
        )  # neither side always runs on a warmer machine
        one = [0.0, 0.0]
        for side in order:
            one[side] = _time((ours, theirs)[side], calls[side])
        times.append((one[0], one[1]))
    ratios = [b / a for a, b in times]
    return Pair(
        ours=statistics.median(a for a, _ in times),
        theirs=statistics.median(b for _, b in times),
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
    )


def report(name: str, claims: list[Claim]) -> None:
    """Prints a table of the claims, then one line of JSON."""
    width = max(len(claim.name) for claim in claims)
    for claim in claims:
        verdict = "holds" if claim.holds else "MISSED"
        print(f"{claim.name:<{width}}  {claim.ratio:8.2f}  goal {claim.goal:<8}  {verdict}")
    print(json.dumps({"name": name, "claims": [asdict(c) | {"holds": c.holds} for c in claims]}))


def _time(work: Work, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - start) / calls


def _calls_per_round(work: Work, seconds: float) -> int:
    if seconds == 0:
        return 1
    _time(work, 3)
    return max(1, min(5000, int(seconds / _time(work, 3))))
