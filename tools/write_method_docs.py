"""Writes the tables of docs/methods.md: ``python tools/write_method_docs.py``.

With ``--pictures [METHOD ...]`` methods (all by default) are run on a photograph, which takes some
minutes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from camfuse.methods import METHODS
from camfuse.methods.base import Method, PassMethod

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
PICTURES = PAGE.parent / "methods"
COLUMNS = 4


def page(text: str) -> str:
    """`text` with its tables as they should be."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"docs/methods.md must hold one place for {name}")
        before, after = pattern.split(text)
        text = before + begin + table() + end + after
    return text


def _methods() -> str:
    lines = [
        "| method | map | needs | cost | made by | per layer | source |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in METHODS.values():
        cells = (
            f"`{method.name}`<br>{method.title}",
            _escaped(method.formula),
            _needs(method),
            _escaped(method.cost),
            f"`ops.{method.native}`" if method.native else "PyTorch",
            _escaped(_per_layer(method)),
            _escaped(method.source),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _needs(method: Method) -> str:
    if isinstance(method, PassMethod):
        return "passes of its own"
    return "activations, gradients" if method.gradients else "activations"


def _per_layer(method: Method) -> str:
    return f"no: {method.whole}" if method.whole else method.only or "yes"


def _escaped(text: str) -> str:
    """As a cell of a table shows it."""
    return text.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")


def _pictures() -> str:
    cells = [
        f"![{method.title} of a cat](methods/{picture_of(method.name)})<br>`{method.name}`"
        for method in METHODS.values()
    ]
    rows = [cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)]
    rows[-1] += [""] * (COLUMNS - len(rows[-1]))
    head = [f"| {' | '.join([' '] * COLUMNS)} |", f"| {' | '.join(['---'] * COLUMNS)} |"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def picture_of(name: str) -> str:
    """The file that shows the method of this name."""
    return f"{name.replace('+', 'p')}.jpg"


TABLES: dict[str, Callable[[], str]] = {"methods": _methods, "pictures": _pictures}


if __name__ == "__main__":
    if "--pictures" in sys.argv[1:]:
        from method_pictures import draw

        PICTURES.mkdir(exist_ok=True)
        names = [name for name in sys.argv[1:] if name in METHODS] or METHODS
        for method in (METHODS[name] for name in names):
            draw(method).save(PICTURES / picture_of(method.name), quality=85)
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
