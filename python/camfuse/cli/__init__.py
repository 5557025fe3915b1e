"""The ``camfuse`` command. Exit codes: 0 done, 2 bad input, 1 failure at run time, 130 Ctrl-C.

Everything but the standard library is imported when it is needed: help comes at once, and a signal
finds :func:`main` ready for it.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from camfuse.cli.report import one_line

if TYPE_CHECKING:
    from typer import Typer

_MODULES = (
    "animate_images",
    "memory",
    "methods",
    "metrics.plots",
    "metrics.sanity",
    "render_video",
    "saved_layers",
    "stills",
)
_Handler = Callable[[int, FrameType | None], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Without the program's name; those of the process by default.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a result is never lost for a character
            stream.reconfigure(errors="backslashreplace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _on_signals(_unwind, signal.SIGTERM):
            with _ended_at_once():
                app = _app()
            return int(app(given, prog_name="camfuse", standalone_mode=False) or 0)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        if "--debug" in given:
            import traceback

            traceback.print_exc()
        code, message = _verdict(error)
        if message:
            print(f"camfuse: error: {message}", file=sys.stderr)
        return code


def _app() -> Typer:
    import typer

    from camfuse.cli.animate import animate
    from camfuse.cli.config import configure
    from camfuse.cli.demo import demo
    from camfuse.cli.info import info
    from camfuse.cli.layers import layers
    from camfuse.cli.render import render
    from camfuse.cli.road import road
    from camfuse.cli.sanity import sanity
    from camfuse.cli.stills import sheet, still

    app = typer.Typer(name="camfuse", no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(configure)
    for command in (animate, sheet, still, render, road, sanity, layers, info, demo):
        app.command()(command)
    return app


def _verdict(error: Exception) -> tuple[int, str]:
    """Exit code and one line for an exception."""
    import typer

    usage_error = typer.BadParameter.__mro__[1]  # click's, or that of the copy newer Typers carry
    if isinstance(error, usage_error):
        return 2, error.format_message()  # type: ignore[attr-defined]
    message, kind = one_line(error), type(error).__name__
    if isinstance(error, ValueError) and _is_ours(error.__traceback__):
        return 2, _with_option(message)
    expected = ValueError | RuntimeError | OSError | FloatingPointError | MemoryError
    if isinstance(error, expected) or message == kind:
        return 1, message
    return 1, f"{kind}: {message}"


def _with_option(message: str) -> str:
    """Where a message begins with the name of an argument, the option of this name takes its place.

    The engine knows no options: its ``save_maps: ...`` is ``--save-maps: ...`` here.
    """
    from typer.main import get_command

    name = re.split("[^a-z_]", message, maxsplit=1)[0]
    rest = message.removeprefix(name)
    option = f"--{name.replace('_', '-')}"
    group: Any = get_command(_app())
    known = {one for command in group.commands.values() for p in command.params for one in p.opts}
    return option + rest if option in known and rest.startswith((": ", " must ")) else message


def _is_ours(traceback: TracebackType | None) -> bool:
    """Whether the package itself raised the error: elsewhere it is no verdict on the input.

    A model's own code, for one, may raise what it likes while it runs.
    """
    name = ""
    while traceback:
        name = traceback.tb_frame.f_globals.get("__name__", "")
        traceback = traceback.tb_next
    return name.partition(".")[0] == "camfuse"


def import_all() -> None:
    """Imports torch and all of the package that the commands use.

    A signal meanwhile ends the process at once, so commands call this before they leave anything
    that would need tidying.
    """
    with _ended_at_once():
        for name in _MODULES:
            importlib.import_module(f"camfuse.{name}")


def _ended_at_once() -> AbstractContextManager[None]:
    """For imports, which lose exceptions: an interrupt could be forgotten, or torch lack NumPy."""
    return _on_signals(lambda number, frame: os._exit(128 + number), signal.SIGINT, signal.SIGTERM)


def _unwind(number: int, frame: FrameType | None) -> None:
    """SIGTERM unwinds like Ctrl-C, so that nothing unfinished is left behind."""
    sys.exit(128 + number)


@contextmanager
def _on_signals(handler: _Handler, *numbers: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # which alone receives signals
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
