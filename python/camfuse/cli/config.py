"""Defaults of options from a TOML file: ``camfuse.toml``, or ``[tool.camfuse]`` of a pyproject."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

_FILES = ("camfuse.toml", "pyproject.toml")


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
    everywhere = {option for known in options.values() for option in known}
    defaults: dict[str, Any] = {}
    for key, value in table.items():
        if key in commands and isinstance(value, Mapping):
            for option in value:
                if option not in options[key]:
                    raise _unknown(
                        path, f"{key}.{option}", {f"{key}.{one}" for one in options[key]}
                    )
        elif key not in everywhere:
            raise _unknown(path, key, {*everywhere, *commands})
    own = {f"{invoked}.{key}": value for key, value in table.get(invoked, {}).items()}
    for key, value in {**table, **own}.items():
        option = key.removeprefix(f"{invoked}.")
        if parameter := options.get(invoked, {}).get(option):
            defaults[parameter.name or option] = _value(path, key, value, parameter)
    return defaults


def _options(command: _Command) -> dict[str, _Parameter]:
    """Parameters by the name of their option: ``save-maps`` for ``--save-maps``."""
    return {
        option.removeprefix("--"): parameter
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--") and option != "--help"
    }


def _value(path: Path, key: str, value: Any, parameter: _Parameter) -> Any:
    if parameter.multiple:
        values = value if isinstance(value, list) else [value]
        return [_one_value(path, key, one, is_flag=False) for one in values]
    return _one_value(path, key, value, is_flag=parameter.is_flag)


def _one_value(path: Path, key: str, value: Any, *, is_flag: bool) -> Any:
    if isinstance(value, bool) != is_flag or not isinstance(value, str | int | float):
        expected = "true or false" if is_flag else "a text or a number"
        raise ValueError(f"{path}: {key}: expected {expected}, got {value!r}")
    return value if is_flag else str(value)


def _unknown(path: Path, key: str, known: set[str]) -> ValueError:
    close = difflib.get_close_matches(key, sorted(known), n=3)
    hint = f"; close: {', '.join(close)}" if close else ""
    return ValueError(f"{path}: no option or command is called {key!r}{hint}")
