"""``camfuse layers``: what is shown of a model, what is not and why, and the memory it takes."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from camfuse.amounts import format_bytes
from camfuse.cli import import_all, options
from camfuse.cli.report import console

if TYPE_CHECKING:
    from camfuse.memory import MemoryPrediction
    from camfuse.stack import CamStack


def layers(
    model: options.Model,
    weights: options.Weights = None,
    layers: options.Layers = None,
    device: options.Device = "cpu",
    batch: options.Batch = 1,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the layers of a model: true sizes, what is skipped and why, and the memory they need.

    Found by a real pass on noise of the model's input size. --weights random needs no download.
    """
    with redirect_stdout(sys.stderr):  # libraries and the user's model may print
        report = _report(model, weights, options.parse_layers(layers), device, batch)
    if as_json:
        print(json.dumps(report))
    else:
        _print_table(report)


def _report(
    model: str, weights: str | None, layers: list[str], device: str, batch: int
) -> dict[str, Any]:
    import_all()
    import torch

    from camfuse.explain import layer_cams
    from camfuse.memory import UnpredictableError, predict_memory
    from camfuse.models import load_model

    loaded = load_model(model, weights=weights, device=device)
    height, width = loaded.preprocessing.size
    noise = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    image = noise.to(device)
    stack = layer_cams(loaded.module, image, layers=layers)
    images = image.expand(batch, -1, -1, -1)
    memory: dict[str, int | str]
    try:
        memory = _memory(predict_memory(loaded.module, images, layers=layers))
    except UnpredictableError as error:
        memory = {"reason": str(error)}
    return _layers(loaded.spec, stack) | {"memory": memory}


def _memory(predicted: MemoryPrediction) -> dict[str, int | str]:
    return {
        "model": predicted.model,
        "batch": predicted.batch,
        "first_pass": predicted.first,
        "later_passes": predicted.later,
        "first_pass_per_image": predicted.first_per_sample,
        "later_passes_per_image": predicted.later_per_sample,
    }


def _layers(spec: str, stack: CamStack) -> dict[str, Any]:
    return {
        "model": spec,
        "input_size": list(stack.input_size),
        "layers": [
            {
                "name": layer.name,
                "type": layer.type,
                "shape": list(layer.shape),
                "shown": layer.shown,
                "alias_of": layer.alias_of,
            }
            for layer in stack.layers
        ],
        "skipped": [
            {"name": one.name, "type": one.type, "reason": one.reason} for one in stack.skipped
        ],
        "warnings": list(stack.warnings),
    }


def _print_table(report: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    height, width = report["input_size"]
    reasons = {one["name"]: one["reason"] for one in report["skipped"]}
    shown = sum(layer["shown"] for layer in report["layers"])
    table = Table(
        title=f"{report['model']} at {height} × {width}: {shown} layers shown, {len(reasons)} not",
        box=None,
    )
    table.add_column("#", justify="right")
    for column in ("layer", "type", "output", "shown"):
        table.add_column(column, overflow="fold")
    for number, layer in enumerate(report["layers"], 1):
        table.add_row(
            str(number),
            Text(layer["name"]),
            layer["type"],
            " × ".join(map(str, layer["shape"])),
            "yes" if layer["shown"] else Text(f"no: {reasons.pop(layer['name'])}"),
        )
    for one in report["skipped"]:  # those without a map
        if one["name"] in reasons:
            table.add_row("", Text(one["name"]), one["type"], "", Text(f"no: {one['reason']}"))
    out = console()
    out.print(table)
    for warning in report["warnings"]:
        out.print(Text(f"warning: {warning}"))
    out.print(Text(_memory_in_words(report["memory"])))


def _memory_in_words(memory: dict[str, Any]) -> str:
    if "reason" in memory:
        return f"memory: unknown ({memory['reason']})"
    amounts = {key: format_bytes(value) for key, value in memory.items() if key != "batch"}
    count = memory["batch"]
    images = "1 image" if count == 1 else f"{count} images"
    return (
        f"memory: model {amounts['model']}; besides it, for {images} (and for each further one), "
        f"first pass {amounts['first_pass']} ({amounts['first_pass_per_image']}), "
        f"later passes {amounts['later_passes']} ({amounts['later_passes_per_image']})"
    )
