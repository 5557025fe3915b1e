"""What people see while a command works: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

from camfuse.cli import import_all

if TYPE_CHECKING:
    from camfuse.render_video import Progress


@contextmanager
def at_work() -> Iterator[Progress | None]:
    """The whole package is imported; what libraries or the user's model print goes to stderr.

    Yields whom to tell of the progress, if anyone.
    """
    with redirect_stdout(sys.stderr):
        import_all()
        with _progress_bar() as progress:
            yield progress


@contextmanager
def _progress_bar() -> Iterator[Progress | None]:
    """A bar on stderr, with rate and time left, that vanishes when done.

    Nothing, and ``None``, where stderr is not a terminal.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar
    from rich.text import Text

    class RateColumn(ProgressColumn):
        """Steps per second of the stage."""

        def render(self, task: Task) -> Text:
            # Chunks of frames are too few for rich's own moving average.
            rate = task.completed / task.elapsed if task.elapsed else 0
            return Text(f"{rate:.3g}/s" if rate else "", style="progress.data.speed")

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description:<6}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)  # until there is a stage
        current = ""

        def show(stage: str, done: int, total: int) -> None:
            nonlocal current
            if stage != current:  # rate and time left are those of the stage
                current = stage
                bar.reset(task, description=stage, total=total, visible=True)
            # The end of a stage is drawn even where the next one follows at once.
            bar.update(task, completed=done, total=total, refresh=done == total)

        yield show
