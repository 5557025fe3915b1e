"""The name under which the rest of the package still imports :mod:`camfuse.metrics.ybroad`."""

from camfuse.metrics.ybroad import Progress, YbRoad, ybroad

__all__ = ["Progress", "YbRoad", "ybroad"]
