"""The name under which the rest of the package still imports :mod:`camfuse.metrics.ybroad`."""

from camfuse.metrics.ybroad import Progress, ybroad
from camfuse.metrics.ybroad_result import YbRoad

__all__ = ["Progress", "YbRoad", "ybroad"]
