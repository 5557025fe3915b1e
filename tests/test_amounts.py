"""Amounts of memory: which texts are understood, and how amounts are written."""

from __future__ import annotations

import numpy as np
import pytest

from camfuse.amounts import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("amount", "count"),
    [
        (1, 1),
        (np.int64(7), 7),
        ("2GB", 2 * 10**9),
        ("512MiB", 512 * 2**20),
        ("1.5 GiB", 3 * 2**29),
        ("64kB", 64_000),
        ("64KB", 64_000),
        ("900B", 900),
    ],
)
def test_bytes_come_as_numbers_or_with_a_unit(amount: int | str, count: int) -> None:
    assert parse_bytes("max_memory", amount) == count


@pytest.mark.parametrize(
    "amount",
    ["", "2", "2 gb", "GB", "-1GB", "1e9B", "2GB ", "2  GB", "٢GB", "infGB", True, 1.5, b"2GB"],
)
def test_anything_else_is_refused_by_name(amount: object) -> None:
    with pytest.raises(ValueError, match=r"max_memory: expected bytes, or text like '2GB'.*got"):
        parse_bytes("max_memory", amount)


@pytest.mark.parametrize("amount", [0, -5, "0GB", "0.1B"])
def test_less_than_a_byte_is_refused(amount: int | str) -> None:
    with pytest.raises(ValueError, match="max_memory: expected at least one byte"):
        parse_bytes("max_memory", amount)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (187_400_000, "187 MB"),
        (1_684_000_000, "1.68 GB"),
        (99_960_000, "100 MB"),
        (20 * 10**12, "20.0 TB"),
    ],
)
def test_amounts_have_three_digits(count: int, text: str) -> None:
    assert format_bytes(count) == text
