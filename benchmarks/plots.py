"""Figures of benchmarks, as SVG files that change only with what they show."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from benchmarks.catalogue import RESULTS

_STYLE = {
    "backend": "agg",
    "svg.hashsalt": "camfuse",  # identifiers that do not differ from run to run
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


@contextmanager
def figure(name: str, columns: int, *, quick: bool) -> Iterator[list[Axes]]:
    """Axes with logarithmic scales, in a row; ``results/NAME.svg`` at the end unless ``quick``."""
    with mpl.rc_context(_STYLE):
        drawn, axes = plt.subplots(
            1, columns, figsize=(4.2 * columns, 3.6), layout="constrained", squeeze=False
        )
        for one in axes[0]:
            one.set(xscale="log", yscale="log")
            for axis in (one.xaxis, one.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(EngFormatter(sep=""))  # 20, 500, 20k
                axis.set_minor_formatter(NullFormatter())
        yield list(axes[0])
        RESULTS.mkdir(exist_ok=True)
        file = io.BytesIO() if quick else RESULTS / f"{name}.svg"
        drawn.savefig(file, format="svg", metadata={"Date": None})
        plt.close(drawn)
