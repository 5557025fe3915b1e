"""Writes the measured figures into the pages that show them, from ``results/NAME.json``.

A page says where with a pair of comments, whose content is replaced:

    <!-- measured overview -->   a row for each claim of each benchmark
    <!-- /measured -->

    <!-- measured NAME -->       a row for each case of one benchmark, a column for each claim
    <!-- /measured -->

Run: ``python -m benchmarks.table``. Results of ``--quick`` are no figures and count as none.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.catalogue import NAMES, RESULTS, summary

Results = Mapping[str, dict[str, Any]]

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md")

_SECTION = re.compile(r"(<!-- measured (\w+) -->\n).*?(<!-- /measured -->)", re.DOTALL)


def main() -> None:
    """Rewrites the pages."""
    results = load(RESULTS)
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), results), encoding="utf-8")
    print(f"{len(results)} of {len(NAMES)} benchmarks measured")


def load(folder: Path) -> Results:
    """The results that are there, by name."""
    files = ((name, folder / f"{name}.json") for name in NAMES)
    found = {name: json.loads(file.read_text("utf-8")) for name, file in files if file.exists()}
    return {name: result for name, result in found.items() if not result["detail"]["quick"]}


def filled(text: str, results: Results) -> str:
    """The page with the sections that it marks."""

    def section(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        lines = overview(results) if name == "overview" else cases(name, results)
        return begin + "\n".join(lines) + "\n" + end

    return _SECTION.sub(section, text)


def overview(results: Results) -> list[str]:
    """A table with a row for each claim, or for a benchmark that has not been run."""
    lines = _head("claim", "measured", "goal", "holds", "command")
    for name in NAMES:
        command = f"`python -m benchmarks {name}`"
        if name not in results:
            lines.append(_row(_inline(summary(name)), "not measured", "", "", command))
            continue
        for claim, of_claim in _grouped(results[name]).items():
            goals = {one["goal"] for one in of_claim}
            goal = ", ".join(sorted(_goal(one) for one in goals))
            lines.append(_row(claim, _measured(of_claim), goal, _verdict(of_claim), command))
    return [*lines, *_circumstances(results.values())]


def cases(name: str, results: Results) -> list[str]:
    """A table with a row for each case of one benchmark; what misses its goal is bold."""
    if name not in NAMES:
        raise ValueError(f"measured: expected overview or one of {', '.join(NAMES)}, got {name!r}")
    if name not in results:
        return ["Not measured."]
    grouped = _grouped(results[name])
    found = {(one["case"], claim): one for claim, many in grouped.items() for one in many}
    lines = _head("case", *grouped)
    for case in dict.fromkeys(case for case, _ in found):
        cells = (found.get((case, claim)) for claim in grouped)
        lines.append(_row(case, *("" if one is None else _cell(one) for one in cells)))
    return [*lines, *_circumstances([results[name]])]


def _grouped(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    for claim in result["detail"]["claims"]:
        grouped.setdefault(claim["name"], []).append(claim)
    return grouped


def _measured(claims: list[dict[str, Any]]) -> str:
    ratios = [one["ratio"] for one in claims]
    if len(claims) == 1:
        return f"{_number(ratios[0])} ({claims[0]['case']})"
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    span = f"{_number(low)} to {_number(high)}, median {_number(middle)}"
    return f"{span}, {len(claims)} cases"


def _verdict(claims: list[dict[str, Any]]) -> str:
    if all(one["goal"] is None for one in claims):
        return ""
    holding = sum(one["holds"] for one in claims)
    if holding == len(claims):
        return "yes"
    return f"**{holding} of {len(claims)}**" if holding else "**no**"


def _cell(claim: dict[str, Any]) -> str:
    number = _number(claim["ratio"])
    return number if claim["holds"] else f"**{number}**"


def _goal(goal: str | None) -> str:
    return goal or ""


def _number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _circumstances(results: Iterable[dict[str, Any]]) -> list[str]:
    """A line that says where the figures come from; none without figures."""
    told = set()
    for result in results:
        detail = result["detail"]
        machine = detail["machine"]
        threads = f"{detail['threads']} thread{'s' if detail['threads'] > 1 else ''}"
        place = f"{machine['cores']} cores of {machine['cpu']}"
        place += f" and {machine['gpu']}" if "gpu" in machine else ""
        told.add(f"{threads} on {place}, torch {detail['torch']}, {detail['date']}")
    return ["", f"Measured with {'; '.join(sorted(told))}."] if told else []


def _head(*cells: str) -> list[str]:
    return [_row(*cells), _row(*("---" for _ in cells))]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _inline(text: str) -> str:
    """Markdown's way to write code, from a docstring's; no full stop in a table."""
    return text.replace("``", "`").rstrip(".")


if __name__ == "__main__":
    main()
