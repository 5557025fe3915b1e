"""``camfuse sanity``: whether maps change as the model's parameters are made random."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camfuse.cli import options
from camfuse.cli.progress import at_work
from camfuse.cli.report import json_text

if TYPE_CHECKING:
    from camfuse.metrics import SanityResult

_PIPE_COLUMNS = 200
_MODES = ("cascading", "independent")


def sanity(
    image: options.Image,
    model: options.Model,
    weights: options.Weights = None,
    method: options.Methods = None,
    layers: options.Layers = None,
    target: options.Target = None,
    mode: Annotated[
        str,
        typer.Option(
            metavar="|".join(_MODES),
            help="Whether modules stay random, from the last to the first, or take turns.",
            autocompletion=options.completes(_MODES),
        ),
    ] = "cascading",
    stages: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Make modules random in at most N steps, one pass each; by default one by one.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="For the random parameters.")] = 0,
    signed: Annotated[
        bool, typer.Option("--signed", help="Compare negative evidence, too, as no picture shows.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also draw the rank correlations, stages by layers: .png, .svg or .pdf.",
        ),
    ] = None,
    batch_size: options.BatchSize = 32,
    device: options.Device = "cpu",
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Test whether maps depend on what the model has learned (Adebayo et al. 2018).

    Parameters are made random step by step, and each layer's map is compared with the original one.
    A map that stays as it was shows the image or the architecture. One that changes has passed this
    test, no more.
    """
    with at_work() as progress:
        from camfuse.class_names import resolve_names
        from camfuse.devices import upload
        from camfuse.images import read_image
        from camfuse.metrics.sanity import sanity as find
        from camfuse.models import load_model
        from camfuse.question import Question

        asked = Question(
            method or "gradcam",
            options.parse_layers(layers),
            options.parse_target(target),
            batch_size=batch_size,
        )
        asked.check()
        _check(mode, stages, plot, image)
        photograph = read_image(image)
        loaded = load_model(model, weights=weights, device=device)
        inputs = loaded.preprocessing(photograph)
        floating = (one for one in loaded.module.parameters() if one.is_floating_point())
        like = next(floating, inputs)
        found = find(
            loaded.module,
            upload(inputs, like.device).to(like.dtype),
            method=asked.methods,
            layers=asked.layers,
            target=resolve_names(asked.target, loaded.classes),
            mode=mode,  # type: ignore[arg-type]  # checked above
            stages=stages,
            seed=seed,
            relu=not signed,
            batch_size=batch_size,
            progress=progress,
        )
        if plot:
            _draw(found, loaded.spec, plot)
    if as_json:
        report = {"version": version("camfuse"), "model": loaded.spec, "weights": loaded.weights}
        if plot:
            report["plot"] = str(plot)
        print(json_text(report | found.to_dict()))
    else:
        _print_table(found, loaded.spec, plot)


def _check(mode: str, stages: int | None, plot: Path | None, image: Path) -> None:
    """Checks what needs no model, before one is loaded."""
    from camfuse.checks import check_not_input, expect_whole
    from camfuse.metrics.plots import ENDINGS, check_matplotlib
    from camfuse.video import check_output

    if mode not in _MODES:
        raise ValueError(f"mode: expected 'cascading' or 'independent', got {mode!r}")
    if stages is not None:
        expect_whole("stages", stages, at_least=1)
    if plot:
        check_output(plot, name="plot", endings=ENDINGS)
        check_not_input(plot, [image], name="plot")
        check_matplotlib()


def _draw(found: SanityResult, model: str, path: Path) -> None:
    """A heat map for each method: a row for each stage, a column for each layer."""
    from matplotlib.figure import Figure

    from camfuse.storage import written_whole

    rows, columns = len(found.stages), len(found.layers)
    height = 1.6 + 0.18 * max(rows, 6) + 1.2
    size = (min(4 + 0.16 * columns, 40), min(height * len(found.methods), 60))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(found.methods), squeeze=False)[:, 0]
    for method, axis in zip(found.methods, axes, strict=True):
        axis.set_facecolor("0.8")  # what is not defined
        table = found.table("spearman", method).numpy()
        shown = axis.imshow(table, vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto")
        axis.set_title(f"{model}, {method}: rank correlation with the original map")
        axis.set_xlabel("layer, in order of execution")
        axis.set_ylabel(f"{found.mode} stage")
        axis.set_xticks(range(columns), found.layers, rotation=90, fontsize=6)
        axis.set_yticks(range(rows), [_stage(names) for names in found.stages], fontsize=6)
        figure.colorbar(shown, ax=axis)
    with written_whole(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower()[1:])


def _stage(names: tuple[str, ...]) -> str:
    named = [name or "the model's own" for name in names]
    return named[0] if len(named) == 1 else f"{named[0]} … {named[-1]} ({len(named)})"


def _print_table(found: SanityResult, model: str, plot: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Into a pipe or a file rich would write 80 columns and break long names.
    console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    likeness = {name: found.final[name].flatten(2).nanmean(2) for name in found.similarity}
    verdicts = iter(found.verdicts())
    for r, method in enumerate(found.methods):
        table = Table(title=f"{model}, {method}: maps once all is random, {found.mode}", box=None)
        table.add_column("layer", overflow="fold")
        for heading in (*likeness, "unrelated", "kept"):
            table.add_column(heading, justify="right")
        table.add_column("verdict")
        for i, layer in enumerate(found.layers):
            one = next(verdicts)
            values: list[Any] = [float(values[i, r]) for values in likeness.values()]
            numbers = [_number(value) for value in (*values, one.unrelated, one.kept)]
            table.add_row(Text(layer), *numbers, one.grade)
        console.print(table)
    for line in found.summary().splitlines():
        console.print(Text(line), soft_wrap=True)
    missing = {one.layer for one in found.undefined}
    if missing:
        example = found.undefined[0]
        console.print(
            Text(
                f"{len(missing)} layers cannot be compared at some stage, such as {example.layer}: "
                f"{example.reason}"
            ),
            soft_wrap=True,
        )
    for warning in found.warnings:
        console.print(Text(f"warning: {warning}"), soft_wrap=True)
    if plot:
        console.print(Text(f"{plot}: written"), soft_wrap=True)


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"
