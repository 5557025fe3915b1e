"""The name under which the rest of the package still imports :mod:`camfuse.metrics.sanity`."""

from camfuse.metrics.sanity import sanity

__all__ = ["sanity"]
