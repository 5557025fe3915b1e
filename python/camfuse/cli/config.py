"""Defaults of options from a TOML file: ``camfuse.toml``, or ``[tool.camfuse]`` of a pyproject."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

_FILES = ("camfuse.toml", "pyproject.toml")
_NO_DEFAULTS = ("debug", "json")  # what a command prints is decided where it is called


class _Parameter(Protocol):
    """What is needed of click's, or of the copy of it that newer Typers carry."""

    name: str | None
    opts: list[str]
    multiple: bool
    is_flag: bool


class _Command(Protocol):
    params: list[Any]


def configure(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file with defaults of options; camfuse.toml or the tool.camfuse table of "
            "pyproject.toml in this folder, if absent.",
        ),
    ] = None,
) -> None:
    """See, layer by layer, where an image model looks."""
    paths = [config] if config else [path for path in map(Path, _FILES) if path.is_file()]
    for path in paths:
        if (table := _table(path)) is not None:
            name = context.invoked_subcommand or ""
            commands = context.command.commands  # type: ignore[attr-defined]  # a group's
            context.default_map = {name: _defaults(path, table, commands, name)}
            return


def _table(path: Path) -> dict[str, Any] | None:
    """The options in ``path``, or None where a pyproject has nothing to say about camfuse."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--config: cannot read {str(path)!r}: {error.strerror}") from error
    except ValueError as error:  # TOML's own errors and those of the encoding
        raise ValueError(f"{path}: not a TOML file: {error}") from error
    if "tool" not in content and path.name != "pyproject.toml":
        return content
    tools = content.get("tool", {})
    table = tools.get("camfuse") if isinstance(tools, dict) else tools
    if table is not None and not isinstance(table, dict):
        raise ValueError(f"{path}: tool.camfuse: expected a table, got {table!r}")
    return table


def _defaults(
    path: Path, table: Mapping[str, Any], commands: Mapping[str, _Command], invoked: str
) -> dict[str, Any]:
    """Defaults by parameter of one command: what the file says for all, then for this command.

    Raises:
        ValueError: If a key names neither a command nor an option, or a value is no option's.
    """
    options = {name: _options(command) for name, command in commands.items()}
    # "layers" is a command and an option: what it holds tells which is meant.
    own = {
        key: value for key, value in table.items() if key in commands and isinstance(value, Mapping)
    }
    shared = {key: value for key, value in table.items() if key not in own}
    anywhere = {option for known in options.values() for option in known}
    for key, value in shared.items():
        if key in commands and key not in anywhere:
            raise ValueError(f"{path}: {key}: expected a table, got {value!r}")
        _check_known(path, key, {*anywhere, *commands})
    for name, values in own.items():
        for key in values:
            _check_known(path, f"{name}.{key}", {f"{name}.{one}" for one in options[name]})
    known = options.get(invoked, {})
    chosen = {key: (key, value) for key, value in shared.items() if key in known}
    chosen |= {key: (f"{invoked}.{key}", value) for key, value in own.get(invoked, {}).items()}
    return {
        known[option].name or option: _value(path, key, value, known[option])
        for option, (key, value) in chosen.items()
    }


def _options(command: _Command) -> dict[str, _Parameter]:
    """Parameters by the name of their option: ``save-maps`` for ``--save-maps``."""
    return {
        name: parameter
        for parameter in command.params
        for name in (option.removeprefix("--") for option in parameter.opts if option[:2] == "--")
        if name not in ("help", *_NO_DEFAULTS)
    }


def _value(path: Path, key: str, value: Any, parameter: _Parameter) -> Any:
    if parameter.is_flag:
        if not isinstance(value, bool):
            raise ValueError(f"{path}: {key}: expected true or false, got {value!r}")
        return value
    if parameter.multiple:
        values = value if isinstance(value, list) else [value]
        return [_text(path, key, one) for one in values]
    return _text(path, key, value)


def _text(path: Path, key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{path}: {key}: expected a text or a number, got {value!r}")
    return str(value)


def _check_known(path: Path, key: str, known: set[str]) -> None:
    """ValueError unless ``key`` is known."""
    if key in known:
        return
    option = key.rpartition(".")[2]
    if option in _NO_DEFAULTS:
        raise ValueError(f"{path}: {key}: has no default; say --{option} when calling a command")
    close = difflib.get_close_matches(key, sorted(known), n=3)
    hint = f"; close: {', '.join(close)}" if close else ""
    raise ValueError(f"{path}: no option or command is called {key!r}{hint}")
