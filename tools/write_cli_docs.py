"""Writes docs/cli.md from the command line itself: ``python tools/write_cli_docs.py``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from typer.main import get_command

from camfuse.cli import _app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
_INTRODUCTION = """\
# The command line

Written by `python tools/write_cli_docs.py` from the commands' own help.

Every command prints a short text for people, or with `--json` one JSON object and nothing else.
What goes wrong is one line on stderr; `--debug` shows the traceback. Exit codes: 0 done, 2 bad
input, 1 failure at run time, 130 Ctrl-C. Files appear under their name only when complete.

Defaults of options may stand in `camfuse.toml`, or under `[tool.camfuse]` in `pyproject.toml`, in
the current folder, or in the file that `camfuse --config FILE` names. A key is the option without
its dashes; a table of a command's name holds what is meant for that command alone. `debug` and
`json` have no defaults:

```toml
model = "efficientnet-lite:0"
colormap = "viridis"

[animate]
method = ["gradcam", "layercam"]
fps = 10
```

Shells complete commands, options and their values after `camfuse --install-completion`.
"""


def page() -> str:
    """The whole page."""
    group: Any = get_command(_app())
    parts = [_INTRODUCTION]
    for name, command in group.commands.items():
        parts.append(f"## camfuse {name}\n\n{_unwrapped(command.help)}\n")
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        usage = " ".join([f"camfuse {name}", *(one.metavar for one in arguments), "[OPTIONS]"])
        parts.append(f"```\n{usage}\n```\n")
        rows = [f"| {_spelling(one)} | {_meaning(one)} |" for one in command.params]
        parts.append("\n".join(["| | |", "| --- | --- |", *rows]) + "\n")
    return "\n".join(parts)


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar}`"
    if parameter.is_flag:
        return ", ".join(f"`{one}`" for one in (*parameter.opts, *parameter.secondary_opts))
    value = f" {parameter.metavar}".replace("|", "\\|")
    return f"`{parameter.opts[0]}{value}`"


def _meaning(parameter: Any) -> str:
    notes = []
    if parameter.required:
        notes.append("required")
    if parameter.param_type_name == "option" and parameter.multiple:
        notes.append("may be repeated")
    default = parameter.default
    if not (parameter.required or default in (None, False) or callable(default)):
        notes.append(f"default `{default}`")
    text = _unwrapped(parameter.help).replace("|", "\\|")
    return f"{text} ({', '.join(notes)})" if notes else text


def _unwrapped(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}", file=sys.stderr)
