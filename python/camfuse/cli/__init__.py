"""The ``camfuse`` command. Exit codes: 0 done, 2 bad input, 1 failure at run time, 130 Ctrl-C.

Commands import what they need when they run, so that help and usage errors come at once.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import typer

from camfuse.cli.animate import animate
from camfuse.cli.demo import demo
from camfuse.cli.info import info
from camfuse.cli.layers import layers

app = typer.Typer(
    name="camfuse",
    help="See, layer by layer, where an image model looks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (animate, layers, info, demo):
    app.command()(_command)

_UsageError = typer.BadParameter.__mro__[1]  # click's, or that of the copy newer Typers carry


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Without the program's name; those of the process by default.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _ended_by_sigterm():
            return int(app(given, prog_name="camfuse", standalone_mode=False) or 0)
    except Exception as error:
        if "--debug" in given:
            traceback.print_exc()
        code, message = _verdict(error)
        if message:
            print(f"camfuse: error: {message}", file=sys.stderr)
        return code


def _verdict(error: Exception) -> tuple[int, str]:
    """Exit code and one line for an exception."""
    if isinstance(error, _UsageError):
        return 2, error.format_message()  # type: ignore[attr-defined]
    message = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if isinstance(error, ValueError):
        return 2, message
    if isinstance(error, RuntimeError | OSError | FloatingPointError) and message:
        return 1, message
    kind = type(error).__name__
    return 1, f"{kind}: {message}" if message else kind


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that nothing unfinished is left behind."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread, which alone receives signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
