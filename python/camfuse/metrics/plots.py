"""Results over the layers, drawn with matplotlib, which ``camfuse[metrics]`` installs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camfuse.metrics.sanity_result import SanityResult
from camfuse.metrics.ybroad_result import YbRoad
from camfuse.storage import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".pdf")

_INCHES = (9.0, 4.0)
_FAINT = 0.2  # opacity of what a score spreads over


def check_matplotlib() -> None:
    """Raises RuntimeError, which says what to install, if there is no matplotlib."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise RuntimeError(
            "a plot needs matplotlib, which is not installed: pip install 'camfuse[metrics]'"
        ) from error


def plot_ybroad(found: YbRoad, out: str | os.PathLike[str], *, sample: int = 0) -> Path:
    """Draws the score of every layer: a curve for each method and target, and the baselines.

    Args:
        found: The scores.
        out: The picture, ``.png``, ``.svg`` or ``.pdf``; it appears once it is complete.
        sample: Which image of the batch.

    Raises:
        RuntimeError: If matplotlib is not installed.
        ValueError: If ``out`` has another ending, or there is no such sample.
    """
    out = _checked(out)
    methods, targets, samples = found.maximum.shape
    if not 0 <= sample < samples:
        raise ValueError(f"sample: expected 0..{samples - 1}, got {sample}")
    figure = _figure(_INCHES)
    axes = figure.add_subplot()
    place = range(1, len(found.layers) + 1)
    for r in range(methods):
        for t in range(targets):
            scores, spread = found.scores[:, r, t, sample], found.spread[:, r, t, sample]
            best = int(found.best[r, t, sample])
            label = f"{_label(found, r, t, sample)}, best {found.layers[best].name}"
            (line,) = axes.plot(place, scores, marker=".", label=label)
            axes.fill_between(
                place, scores - spread, scores + spread, color=line.get_color(), alpha=_FAINT, lw=0
            )
            axes.plot(best + 1, scores[best], "o", color=line.get_color(), fillstyle="none", ms=10)
    for t in range(targets):
        whose = f", {_target(found, t, sample)}" if targets > 1 else ""
        _draw_baselines(axes, found, t, sample, whose)
    axes.set(
        xlabel="layer, in order of execution",
        ylabel="ROAD",
        title=" · ".join(one for one in (found.stack.model, f"ybROAD by {found.output}") if one),
        xlim=(0.5, len(found.layers) + 0.5),
    )
    axes.legend(fontsize="small", loc="best")
    return _saved(figure, out)


def plot_sanity(found: SanityResult, out: str | os.PathLike[str], *, model: str = "") -> Path:
    """Draws rank correlations with the original maps: stages by layers, a table for each method.

    Args:
        found: The result, with ``"spearman"`` among its similarities.
        out: The picture, ``.png``, ``.svg`` or ``.pdf``; it appears once it is complete.
        model: What the model is called.

    Raises:
        RuntimeError: If matplotlib is not installed.
        ValueError: If ``out`` has another ending, or the similarity is missing.
    """
    out = _checked(out)
    rows, columns = len(found.stages), len(found.layers)
    height = 1.6 + 0.18 * max(rows, 6) + 1.2
    figure = _figure((min(6 + 0.16 * columns, 40), min(height * len(found.methods), 60)))
    axes = figure.subplots(len(found.methods), squeeze=False)[:, 0]
    for method, axis in zip(found.methods, axes, strict=True):
        axis.set_facecolor("0.8")  # what is not defined
        table = found.table("spearman", method).numpy()
        shown = axis.imshow(table, vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto")
        whose = ", ".join(one for one in (model, method) if one)
        axis.set_title(f"{whose}\nrank correlation with the original map", fontsize=10)
        axis.set_xlabel("layer, in order of execution")
        axis.set_ylabel(f"{found.mode} stage")
        axis.set_xticks(range(columns), found.layers, rotation=90, fontsize=6)
        axis.set_yticks(range(rows), [_stage(names) for names in found.stages], fontsize=6)
        figure.colorbar(shown, ax=axis)
    return _saved(figure, out)


def _checked(out: str | os.PathLike[str]) -> Path:
    """The path of a picture, once it is known that one can be drawn there."""
    out = Path(out)
    if out.suffix.lower() not in ENDINGS:
        raise ValueError(f"out: expected .png, .svg or .pdf, got {str(out)!r}")
    check_matplotlib()
    return out


def _figure(inches: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=inches, layout="constrained")


def _saved(figure: Figure, out: Path) -> Path:
    with written_whole(out) as temporary:
        figure.savefig(temporary, format=out.suffix.lower()[1:], dpi=150)
    return out


def _draw_baselines(axes: Axes, found: YbRoad, t: int, sample: int, whose: str) -> None:
    styles: list[tuple[str, Any, str]] = [
        ("random maps", found.random, ":"),
        ("edges of the image", found.sobel, "--"),
    ]
    for name, baseline, dashes in styles:
        mean, spread = float(baseline.mean[t, sample]), float(baseline.spread[t, sample])
        axes.axhline(mean, color="gray", ls=dashes, label=name + whose)
        axes.axhspan(mean - spread, mean + spread, color="gray", alpha=_FAINT, lw=0)


def _label(found: YbRoad, r: int, t: int, sample: int) -> str:
    return f"{found.methods[r]} of {_target(found, t, sample)}"


def _target(found: YbRoad, t: int, sample: int) -> str:
    index = int(found.stack.targets[t, sample])
    return found.stack.target_name(t, sample) or (f"class {index}" if index >= 0 else "a function")


def _stage(names: tuple[str, ...]) -> str:
    named = [name or "the model's own" for name in names]
    return named[0] if len(named) == 1 else f"{named[0]} … {named[-1]} ({len(named)})"
