"""``camfuse sheet`` and ``camfuse still``: pictures of many layers, or of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camfuse.cli import options
from camfuse.cli.progress import at_work
from camfuse.cli.report import json_text

if TYPE_CHECKING:
    from PIL import Image

    from camfuse.models import LoadedModel
    from camfuse.stack import CamStack

_SHEET_ENDINGS = (".png", ".svg")
_STILL_ENDINGS = (".png", ".npy")


def sheet(
    image: options.Image,
    model: options.Model,
    weights: options.Weights = None,
    method: options.Method = "gradcam",
    layers: options.Layers = None,
    target: options.Target = None,
    normalize: options.NormalizeOne = "layer",
    size: Annotated[int, typer.Option(metavar="PIXELS", help="Longer side of a picture.")] = 192,
    columns: Annotated[
        int | None, typer.Option(metavar="N", help="Pictures side by side; chosen if absent.")
    ] = None,
    colormap: options.Colormap = "turbo",
    keyframes: options.Keyframes = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The sheet, .png or .svg; by default IMAGE-sheet.png."),
    ] = None,
    max_memory: options.MaxMemory = None,
    device: options.Device = "cpu",
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make a contact sheet: the photograph and the maps of the chosen layers, with their names."""
    out = out or Path(f"{image.stem}-sheet.png")
    with at_work():
        from camfuse.stills import sheet as make_sheet
        from camfuse.storage import written_whole
        from camfuse.thinning import key_layers
        from camfuse.video import check_output

        check_output(out, name="out", endings=_SHEET_ENDINGS)
        _check_normalize(normalize)
        if columns is not None and columns < 1:
            raise ValueError(f"--columns: expected at least 1, got {columns}")
        photograph, loaded, stack = _ask(
            image, model, weights, method, options.parse_layers(layers), target, max_memory, device
        )
        stack = stack.shown()
        if keyframes is not None:
            stack = stack.select(layers=[stack.names[i] for i in key_layers(stack, keyframes)])
        made = make_sheet(
            stack,
            photograph,
            normalize=normalize,  # type: ignore[arg-type]  # checked where it is used
            size=size,
            columns=columns,
            colormap=colormap,
        )
        with written_whole(out) as temporary:
            if out.suffix.lower() == ".svg":
                temporary.write_text(made.to_svg(), encoding="utf-8")
            else:
                made.to_image().save(temporary, "PNG")
    _tell(out, loaded, stack, as_json)


def still(
    image: options.Image,
    model: options.Model,
    layer: Annotated[
        str, typer.Option(metavar="NAME", help="The layer; camfuse layers lists them.")
    ],
    weights: options.Weights = None,
    method: options.Method = "gradcam",
    target: options.Target = None,
    normalize: options.NormalizeOne = "layer",
    size: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", help="Longer side; the photograph's own by default."),
    ] = None,
    colormap: options.Colormap = "turbo",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A picture, .png, or the raw signed map, h x w, as NumPy's .npy; by default "
            "IMAGE-LAYER.png.",
        ),
    ] = None,
    max_memory: options.MaxMemory = None,
    device: options.Device = "cpu",
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make a picture of one layer's map over the photograph, or write the raw map."""
    out = out or Path(f"{image.stem}-{layer}.png")
    with at_work():
        import numpy as np

        from camfuse.stills import still as make_still
        from camfuse.storage import written_whole
        from camfuse.video import check_output

        check_output(out, name="out", endings=_STILL_ENDINGS)
        _check_normalize(normalize)
        # The global range is that of all layers, so all of them are asked for.
        layers = ["leaf", layer] if normalize == "global" else [layer]
        photograph, loaded, stack = _ask(
            image, model, weights, method, layers, target, max_memory, device
        )
        stack = _only(stack, layer)
        with written_whole(out) as temporary:
            if out.suffix.lower() == ".npy":
                with temporary.open("wb") as file:
                    np.save(file, stack.maps(0)[0, 0, 0].float().cpu().numpy())
            else:
                picture = make_still(
                    stack,
                    photograph,
                    0,
                    normalize=normalize,  # type: ignore[arg-type]
                    size=size,
                    colormap=colormap,
                )
                picture.save(temporary, "PNG")
    _tell(out, loaded, stack, as_json)


def _ask(
    image: Path,
    model: str,
    weights: str | None,
    method: str,
    layers: Sequence[str],
    target: str | None,
    max_memory: str | None,
    device: str,
) -> tuple[Image.Image, LoadedModel, CamStack]:
    from camfuse.images import read_image
    from camfuse.models import load_model
    from camfuse.question import Question

    question = Question(method, layers, options.parse_target(target), max_memory=max_memory)
    question.check()
    photograph = read_image(image)
    loaded = load_model(model, weights=weights, device=device)
    return photograph, loaded, question.ask(loaded, [photograph])


def _check_normalize(normalize: str) -> None:
    if normalize not in ("layer", "global"):
        raise ValueError(f"--normalize: expected layer or global, got {normalize!r}")


def _only(stack: CamStack, layer: str) -> CamStack:
    """The one layer of this name."""
    try:
        return stack.select(layers=[layer])
    except KeyError as error:
        raise ValueError(f"--layer: {error.args[0]}") from error


def _tell(out: Path, model: LoadedModel, stack: CamStack, as_json: bool) -> None:
    report: dict[str, Any] = {
        "path": str(out),
        "model": model.spec,
        "weights": model.weights,
        "method": stack.methods[0],
        "target": stack.target_name(0, 0) or int(stack.targets[0, 0]),
        "layers": list(stack.names),
        "bytes_written": out.stat().st_size,
    }
    if as_json:
        print(json_text(report))
    else:
        layers = f"{len(stack)} layers" if len(stack) > 1 else stack.names[0]
        print(f"{out}: {layers}, {report['bytes_written'] / 1e6:.1f} MB")
