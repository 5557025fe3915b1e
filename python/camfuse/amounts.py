"""Amounts of memory, as people write and read them."""

from __future__ import annotations

import operator
import re

_DECIMAL = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BINARY = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_UNITS = {"KB": 10**3} | _DECIMAL | _BINARY
_AMOUNT = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(_UNITS)})", re.ASCII)


def parse_bytes(name: str, amount: int | str) -> int:
    """Bytes from a number or from text like ``"2GB"`` (10^9) or ``"512MiB"`` (2^20).

    Args:
        name: What messages call the argument.
        amount: As the user gave it.

    Raises:
        ValueError: If it is neither, or less than one byte.
    """
    found = _AMOUNT.fullmatch(amount) if isinstance(amount, str) else None
    if found:
        count = int(float(found[1]) * _UNITS[found[2]])
    elif isinstance(amount, str | bool) or not hasattr(amount, "__index__"):
        raise ValueError(
            f"{name}: expected bytes, or text like '2GB' or '512MiB' "
            f"(units {', '.join(_UNITS)}), got {amount!r}"
        )
    else:
        count = operator.index(amount)
    if count < 1:
        raise ValueError(f"{name}: expected at least one byte, got {amount!r}")
    return count


def format_bytes(count: int) -> str:
    """Three digits and a unit: ``"187 MB"``, ``"1.68 GB"``."""
    size, unit = next(
        (size, unit) for unit, size in reversed(_DECIMAL.items()) if count >= size or size == 1
    )
    value = count / size
    if size == 1:
        return f"{count} B"
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} {unit}"
