"""What a benchmark found, as one JSON object, and the table that is printed of it."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.harness import Claim

Result = dict[str, Any]


def result_of(name: str, claims: Sequence[Claim], *, quick: bool) -> Result:
    """The result; at its top stands the claim that is farthest from its goal.

    Keys: ``name``; ``ratio`` and ``goal`` of that claim; ``holds``, whether all do; ``detail`` with
    ``claims`` and where, when and how they were measured.
    """
    import torch

    worst = max(claims, key=lambda claim: claim.shortfall)
    detail = {
        "claims": [_rounded(asdict(claim)) | {"holds": claim.holds} for claim in claims],
        "quick": quick,
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "torch": torch.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    return {
        "name": name,
        "ratio": _rounded(worst.ratio),
        "goal": worst.goal,
        "holds": all(claim.holds for claim in claims),
        "detail": detail,
    }


def _rounded(value: Any) -> Any:
    """Floats to four digits, also within dictionaries."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def machine() -> dict[str, str | int]:
    """The processor's model, the cores that this process may use, and the GPU if there is one."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found: dict[str, str | int] = {
        "cpu": models[0] if models else "unknown",
        "cores": len(os.sched_getaffinity(0)),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def print_table(claims: Sequence[Claim]) -> None:
    """One line for each claim."""
    width = max(len(f"{claim.name}, {claim.case}") for claim in claims)
    for claim in claims:
        verdict = "" if claim.goal is None else "holds" if claim.holds else "MISSED"
        goal = "no goal" if claim.goal is None else f"goal {claim.goal}"
        print(f"{f'{claim.name}, {claim.case}':<{width}}  {claim.ratio:9.3g}  {goal:<12} {verdict}")


def write_json(path: Path, result: Result) -> None:
    """Writes the result; the file appears, or is replaced, once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)
