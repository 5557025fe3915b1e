"""``camfuse sheet`` and ``camfuse still``: pictures of many layers, or of one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camfuse.cli import options
from camfuse.cli.progress import at_work
from camfuse.cli.report import json_text

if TYPE_CHECKING:
    from PIL import Image

    from camfuse.models import LoadedModel
    from camfuse.question import Question
    from camfuse.stack import CamStack

_SHEET_ENDINGS = (".png", ".svg")
_STILL_ENDINGS = (".png", ".npy")
_CALL = re.compile(r"#\d+$")


def sheet(
    image: options.Image,
    model: options.Model,
    weights: options.Weights = None,
    method: options.Method = "gradcam",
    layers: options.Layers = None,
    target: options.Target = None,
    aug_smooth: options.AugSmooth = False,
    eigen_smooth: options.EigenSmooth = False,
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
    batch_size: options.BatchSize = 32,
    max_memory: options.MaxMemory = None,
    device: options.Device = "cpu",
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make a contact sheet: the photograph and the maps of the chosen layers, with their names."""
    out = out or Path(f"{image.stem}-sheet.png")
    with at_work():
        from camfuse.question import Question
        from camfuse.stills import check_look
        from camfuse.stills import sheet as make_sheet
        from camfuse.storage import written_whole
        from camfuse.style import VideoStyle

        check_look(normalize=normalize, size=size, colormap=colormap, columns=columns)
        if keyframes is not None and keyframes < 1:
            raise ValueError(f"keyframes: expected at least 1, got {keyframes}")
        question = Question(
            method,
            options.parse_layers(layers),
            options.parse_target(target),
            max_memory=max_memory,
            aug_smooth=aug_smooth,
            eigen_smooth=eigen_smooth,
            batch_size=batch_size,
        )
        photograph, loaded, stack = _ask(
            question, image, model, weights, device, out, _SHEET_ENDINGS
        )
        shown = VideoStyle(keyframes=keyframes).shown(stack)
        made = make_sheet(
            shown,
            photograph,
            normalize=normalize,  # type: ignore[arg-type]  # checked above
            size=size,
            columns=columns,
            colormap=colormap,
        )
        with written_whole(out) as temporary:
            if out.suffix.lower() == ".svg":
                temporary.write_text(made.to_svg(), encoding="utf-8")
            else:
                made.to_image().save(temporary, "PNG")
    _tell(out, loaded, question, stack, shown, as_json)


def still(
    context: typer.Context,
    image: options.Image,
    model: options.Model,
    layer: Annotated[
        str, typer.Option(metavar="NAME", help="The layer; camfuse layers lists them.")
    ],
    weights: options.Weights = None,
    method: options.Method = "gradcam",
    target: options.Target = None,
    aug_smooth: options.AugSmooth = False,
    eigen_smooth: options.EigenSmooth = False,
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
    batch_size: options.BatchSize = 32,
    max_memory: options.MaxMemory = None,
    device: options.Device = "cpu",
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make a picture of one layer's map over the photograph, or write the raw map."""
    out = out or Path(f"{image.stem}-{layer}.png")
    raw = out.suffix.lower() == ".npy"
    with at_work():
        import numpy as np

        from camfuse.question import Question
        from camfuse.stills import check_look
        from camfuse.stills import still as make_still
        from camfuse.storage import written_whole

        if raw:
            _check_absent(context, "normalize", "size", "colormap")
        check_look(normalize=normalize, size=size, colormap=colormap)
        # Every call of a module is captured, and the global range is that of all layers.
        layers = [_module_of(layer)]
        if normalize == "global" and not raw:
            layers.append("leaf")
        question = Question(
            method,
            layers,
            options.parse_target(target),
            max_memory=max_memory,
            aug_smooth=aug_smooth,
            eigen_smooth=eigen_smooth,
            batch_size=batch_size,
        )
        photograph, loaded, stack = _ask(
            question, image, model, weights, device, out, _STILL_ENDINGS
        )
        shown = _only(stack, layer)
        with written_whole(out) as temporary:
            if raw:
                with temporary.open("wb") as file:
                    np.save(file, shown.maps(0)[0, 0, 0].float().cpu().numpy())
            else:
                picture = make_still(
                    shown,
                    photograph,
                    0,
                    normalize=normalize,  # type: ignore[arg-type]  # checked above
                    size=size,
                    colormap=colormap,
                )
                picture.save(temporary, "PNG")
    _tell(out, loaded, question, stack, shown, as_json)


def _ask(
    question: Question,
    image: Path,
    model: str,
    weights: str | None,
    device: str,
    out: Path,
    endings: Sequence[str],
) -> tuple[Image.Image, LoadedModel, CamStack]:
    """The photograph, the model and its answer, once all that needs no model is known to fit."""
    from camfuse.checks import check_not_input
    from camfuse.images import read_image
    from camfuse.models import load_model
    from camfuse.video import check_output

    check_output(out, name="out", endings=endings)
    check_not_input(out, [image])
    question.check()
    photograph = read_image(image)
    loaded = load_model(model, weights=weights, device=device)
    return photograph, loaded, question.ask(loaded, [photograph])


def _check_absent(context: typer.Context, *names: str) -> None:
    """Refuses options of pictures with a raw map; as defaults in a file they do no harm."""
    for name in names:
        source = context.get_parameter_source(name)
        if source and source.name == "COMMANDLINE":
            raise ValueError(f"--{name}: expected with a picture only, a raw map has none")


def _module_of(layer: str) -> str:
    """Name of the module whose call ``layer`` is: ``relu`` for ``relu#2``, its second.

    Raises:
        ValueError: If it is not the name of a single layer.
    """
    from camfuse.layers import selects_several
    from camfuse.thinning import is_thinning

    name = _CALL.sub("", layer)
    if not name or selects_several(name) or is_thinning(name):
        raise ValueError(f"--layer: expected the name of one layer, got {layer!r}")
    return name


def _only(stack: CamStack, layer: str) -> CamStack:
    """The one layer of this name."""
    try:
        return stack.select(layers=[layer])
    except KeyError as error:
        raise ValueError(f"--layer: {error.args[0]}") from error


def _tell(
    out: Path,
    model: LoadedModel,
    question: Question,
    stack: CamStack,
    shown: CamStack,
    as_json: bool,
) -> None:
    from camfuse.result import Explained, target_report
    from camfuse.views import choose_views, title_of

    (view,) = choose_views([shown])
    explained = Explained(
        model.spec,
        model.weights,
        model.preprocessing,
        stack,
        shown,
        question.aug_smooth,
        question.eigen_smooth,
    )
    written = out.stat().st_size
    if as_json:
        report = {
            "version": version("camfuse"),
            "path": str(out),
            **explained.to_dict(),
            "method": view.method_name,
            "target": target_report(view),
            "bytes_written": written,
        }
        print(json_text(report))
    else:
        layers = f"{len(shown)} layers" if len(shown) > 1 else shown.names[0]
        print(f"{out}: {layers}, {written / 1e6:.1f} MB")
        print(title_of([view]))
        for warning in stack.warnings:
            print(f"warning: {warning}")
