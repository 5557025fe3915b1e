"""Runs a benchmark: its progress, a table of its claims, and one JSON object as the last line.

python -m benchmarks                       lists the benchmarks
python -m benchmarks NAME [--quick] [--json FILE] [--threads N]
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.catalogue import NAMES, summary
from benchmarks.harness import Claim, NothingMeasured

# Read when the libraries load, here and in processes of a benchmark's own.
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


def main(
    name: Annotated[str | None, typer.Argument(help="Which; lists them if absent.")] = None,
    quick: Annotated[bool, typer.Option(help="Fewer cases and rounds: a try, no figures.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the JSON object here.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of every library; all cores by default.")
    ] = None,
) -> None:
    """Measure one of camfuse's claims, side by side with what it is held against."""
    if name is None:
        for one in NAMES:
            print(f"{one:<18} {summary(one)}")
        return
    if name not in NAMES:
        raise typer.BadParameter(f"expected one of {', '.join(NAMES)}, got {name!r}")
    use_threads(threads or len(os.sched_getaffinity(0)))

    # torch comes with these, and reads the threads.
    from benchmarks.result import print_table, result_of, write_json

    try:
        claims: list[Claim] = importlib.import_module(f"benchmarks.{name}").run(quick)
    except NothingMeasured as reason:
        print(reason)
        return
    print()
    print_table(claims)
    result = result_of(name, claims, quick=quick)
    if json_file is not None:
        write_json(json_file, result)
    print(json.dumps(result))


def use_threads(threads: int) -> None:
    """Limits every library, in this process before it loads them and in those it starts."""
    os.environ |= dict.fromkeys(_THREADS, str(threads))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
