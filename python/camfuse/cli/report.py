"""How results are printed: as JSON, or in a few lines for people."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_COLUMNS = 200


def json_text(report: dict[str, Any], indent: int | None = None) -> str:
    """The report as strict JSON."""
    return json.dumps(report, indent=indent, allow_nan=False)


def console() -> Console:
    """Where tables are printed.

    Into a pipe or a file rich would write 80 columns and break long names.
    """
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def check_plot(plot: Path, image: Path) -> None:
    """Checks, before any work, that a plot can be drawn and written beside its photograph.

    Raises:
        ValueError: If the path does not fit.
        OSError: If its folder cannot be written to.
        RuntimeError: If matplotlib is not installed.
    """
    from camfuse.checks import check_not_input
    from camfuse.metrics.plots import ENDINGS, check_matplotlib
    from camfuse.video import check_output

    check_output(plot, name="plot", endings=ENDINGS)
    check_not_input(plot, [image], name="plot")
    check_matplotlib()


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
    for model in report.get("models", [report]):
        results = model.get("ybroad", {}).get("results", ())
        for result in results:
            whose = [model["model"]] if "models" in report else []
            if len(results) > 1:
                whose += [result["method"], target_name(result["target"])]
            lines.append(" · ".join([*whose, best_in_words(result)]))
    lines += [f"warning: {warning}" for warning in report["warnings"]]
    return "\n".join(lines)


def best_in_words(result: dict[str, Any]) -> str:
    """The best layer of one method and target by ybROAD, and whether that means something."""
    best, baselines = result["maximum"], result["baselines"]
    margins = "; ".join(
        f"{one['margin']:+.3f} over {name} ({one['mean']:.3f} ± {one['spread']:.3f})"
        for name, one in (
            ("random maps", baselines["random"]),
            ("the edges of the image", baselines["sobel"]),
        )
    )
    if result["beats_baselines"]:
        return f"best layer {result['best_layer']}: ROAD {best:.3f}, {margins}"
    return (
        "no layer beats maps that know nothing of the model: the highest, "
        f"{result['best_layer']}, has ROAD {best:.3f}, {margins}"
    )


def target_name(target: dict[str, Any]) -> str:
    """What a target is called."""
    if target["name"] or target["index"] is not None:
        return str(target["name"] or f"class {target['index']}")
    return "a function"


def _target(target: dict[str, Any]) -> str:
    name = target_name(target)
    probability = target["probability"]
    return f"{name} (p = {'not finite' if probability is None else f'{probability:.3f}'})"
