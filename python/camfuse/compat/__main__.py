"""``python -m camfuse.compat run``: a program as it is, with faces in their libraries' places."""

from __future__ import annotations

import builtins
import runpy
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from camfuse.compat.installation import FACES, install

# Click's, or that of the copy that newer Typers carry.
_UsageError: Any = typer.BadParameter.__mro__[1]


def main(arguments: Sequence[str]) -> int:
    """Installs faces and runs a program, whose exit code and exceptions are its own.

    Args:
        arguments: Without this program's name.

    Returns:
        0, or 2 if there is nothing to run.
    """
    command = typer.main.get_command(_app)
    try:
        chosen = command.main(
            _marked(arguments), prog_name="python -m camfuse.compat", standalone_mode=False
        )
    except _UsageError as error:
        print(f"camfuse: error: {error.format_message()}", file=sys.stderr)
        code: int = error.exit_code
        return code
    if not isinstance(chosen, _Chosen):  # help was all that was asked for
        return int(chosen or 0)
    # The parser is out of the way: it would take some exceptions of the program for its own.
    install(*chosen.faces)
    sys.argv = chosen.program
    if chosen.is_module:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        _run_script(sys.argv[0])
    return 0


@dataclass(frozen=True)
class _Chosen:
    faces: list[str]
    program: list[str]
    is_module: bool


def _run(
    program: Annotated[
        list[str],
        typer.Argument(metavar="PROGRAM", help="SCRIPT or -m MODULE, and its arguments."),
    ],
    face: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"Which faces: {', '.join(FACES)}; all by default."),
    ] = None,
) -> _Chosen:
    """Run a program that imports pytorch_grad_cam, torchcam or captum on camfuse.

    The libraries need not be installed. Of captum, if it is, only LayerGradCam is exchanged.
    """
    for name in face or []:
        if name not in FACES:
            raise _UsageError(f"--face: expected one of {', '.join(FACES)}, got {name!r}")
    first = program[0]
    if first.startswith("-m"):
        words = [first.removeprefix("-m"), *program[1:]] if first != "-m" else program[1:]
        if not words:
            raise _UsageError("-m: expected the name of a module")
        return _Chosen(face or [], words, is_module=True)
    if not Path(first).exists():
        raise _UsageError(f"expected a script or -m MODULE, got {first!r}")
    return _Chosen(face or [], program, is_module=False)


def _only_run() -> None:
    """Faces of other CAM libraries, for programs that are not to be changed."""


_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_app.callback()(_only_run)
_app.command("run")(_run)


def _marked(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``--`` before the program: what comes after is not for this parser."""
    ours = 1
    while ours < len(arguments) and arguments[ours].startswith("--"):
        if arguments[ours] in ("--", "--help"):
            return list(arguments)
        ours += 1 if "=" in arguments[ours] else 2
    return [*arguments[:ours], "--", *arguments[ours:]] if ours < len(arguments) else [*arguments]


def _run_script(script: str) -> None:
    if Path(script).is_dir() or zipfile.is_zipfile(script):
        runpy.run_path(script, run_name="__main__")
        return
    if not sys.flags.safe_path:
        sys.path[0] = str(Path(script).resolve().parent)
    # Not runpy's: its module goes when the script ends, and threads and exit handlers come after.
    module = ModuleType("__main__")
    module.__file__ = str(Path(script).absolute())
    sys.modules["__main__"] = module
    vars(module)["__builtins__"] = builtins
    code = compile(Path(script).read_bytes(), module.__file__, "exec", dont_inherit=True)
    exec(code, vars(module))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
