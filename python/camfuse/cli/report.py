"""How results are printed: as JSON, or in a few lines for people."""

from __future__ import annotations

import json
from typing import Any


def json_text(report: dict[str, Any], indent: int | None = None) -> str:
    """The report as strict JSON."""
    return json.dumps(report, indent=indent, allow_nan=False)


def one_line(error: Exception) -> str:
    """What an exception says, its notes too, on one line; the name of its class if nothing."""
    said = [*str(error).splitlines(), *getattr(error, "__notes__", [])]
    lines = [line.strip() for line in said if line.strip()]
    return "; ".join(lines) or type(error).__name__


def summary(report: dict[str, Any]) -> str:
    """The report of one video, for people."""
    lines = [
        f"{report['path']}: {report['frames']} layers, {report['bytes_written'] / 1e6:.1f} MB, "
        f"{sum(report['seconds'].values()):.1f} s"
    ]
    for one in report.get("compared", [report]):
        lines.append(f"{one['model']} · {one['method']} of {_target(one['target'])}")
    lines[-1] += f", {len(report['skipped'])} modules skipped"
    lines += [f"warning: {warning}" for warning in report["warnings"]]
    return "\n".join(lines)


def _target(target: dict[str, Any]) -> str:
    name = target["name"] or f"class {target['index']}"
    probability = target["probability"]
    return f"{name} (p = {'not finite' if probability is None else f'{probability:.3f}'})"
