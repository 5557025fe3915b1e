"""``camfuse sanity``: whether maps change as the model's parameters are made random."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camfuse.cli import options
from camfuse.cli.progress import at_work
from camfuse.cli.report import check_plot, console, json_text

if TYPE_CHECKING:
    from camfuse.metrics import SanityResult

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
        from camfuse.images import read_image
        from camfuse.metrics.plots import plot_sanity
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
        found = find(
            loaded.module,
            loaded.inputs([photograph]),
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
        if plot is not None:
            plot_sanity(found, plot, model=loaded.spec)
    if as_json:
        report = {
            "version": version("camfuse"),
            "model": loaded.spec,
            "weights": loaded.weights,
            **found.to_dict(),
            "plot": None if plot is None else str(plot),
        }
        print(json_text(report))
    else:
        _print_table(found, loaded.spec, plot)


def _check(mode: str, stages: int | None, plot: Path | None, image: Path) -> None:
    """Checks what needs no model, before one is loaded."""
    from camfuse.checks import expect_whole

    if mode not in _MODES:
        raise ValueError(f"mode: expected 'cascading' or 'independent', got {mode!r}")
    if stages is not None:
        expect_whole("stages", stages, at_least=1)
    if plot is not None:
        check_plot(plot, image)


def _print_table(found: SanityResult, model: str, plot: Path | None) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
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
        out.print(table)
    for line in found.summary().splitlines():
        out.print(Text(line), soft_wrap=True)
    missing = {one.layer for one in found.undefined}
    if missing:
        example = found.undefined[0]
        out.print(
            Text(
                f"{len(missing)} layers cannot be compared at some stage, such as {example.layer}: "
                f"{example.reason}"
            ),
            soft_wrap=True,
        )
    for warning in found.warnings:
        out.print(Text(f"warning: {warning}"), soft_wrap=True)
    if plot is not None:
        out.print(Text(f"{plot}: written"), soft_wrap=True)


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"
