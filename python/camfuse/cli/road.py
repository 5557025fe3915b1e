"""``camfuse road``: which layer's map is most faithful to the model, and does it say anything."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camfuse.cli import options
from camfuse.cli.progress import at_work
from camfuse.cli.report import best_in_words, check_plot, console, json_text, target_name

if TYPE_CHECKING:
    from camfuse.question import Question
    from camfuse.render_video import Progress

_TOP = 15


def road(
    image: options.Image,
    model: options.Model,
    weights: options.Weights = None,
    method: options.Methods = None,
    layers: options.Layers = None,
    target: options.Targets = None,
    percentages: options.Percentages = "20,40,60,80",
    seeds: options.Seeds = 3,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="Layers to list.")] = _TOP,
    everything: Annotated[bool, typer.Option("--all", help="List all layers.")] = False,
    plot: options.Plot = None,
    batch_size: options.BatchSize = 32,
    max_memory: options.MaxMemory = None,
    device: options.Device = "cpu",
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Rank the layers of a model by ybROAD: is what their maps point at what the model needs?

    The map of every layer is scored by ROAD: the pixels it ranks first, and those it ranks last,
    are replaced by what is around them, and the model is asked again. ROAD is half of how much more
    of the class's probability is left without the last ones, in [-0.5, 0.5]. Beside them stands
    what maps score that know nothing of the model: random ones, and the edges of the photograph.
    """
    with at_work() as progress:
        from camfuse.question import Question

        question = Question(
            method=method or ["gradcam"],
            layers=options.parse_layers(layers),
            target=options.parse_target(target),
            max_memory=max_memory,
            batch_size=batch_size,
            road=True,
            percentages=options.parse_percentages(percentages),
            seeds=range(seeds),
        )
        report = _report(image, model, weights, device, question, plot, progress)
    if as_json:
        print(json_text(report))
    else:
        _print_tables(report, None if everything else top)


def _report(
    image: Path,
    model: str,
    weights: str | None,
    device: str,
    question: Question,
    plot: Path | None,
    progress: Progress | None,
) -> dict[str, Any]:
    from camfuse.animate import Clock, ready_model
    from camfuse.images import read_image
    from camfuse.metrics.plots import plot_ybroad

    question.check()
    if plot is not None:
        check_plot(plot, image)
    clock = Clock(progress)
    with clock.stage("image"):
        photograph = read_image(image)
    with clock.stage("model"):
        loaded = ready_model(model, weights, device, None, None)
    with clock.stage("maps"):
        stack = question.ask(loaded, [photograph])
    with clock.stage("road"):
        found = question.score(loaded, [photograph], stack, progress)
    if plot is not None:
        plot_ybroad(found, plot)
    return {
        "version": version("camfuse"),
        "model": loaded.spec,
        "weights": loaded.weights,
        **found.to_dict(),
        "plot": None if plot is None else str(plot),
        "warnings": list(stack.warnings),
        "seconds": clock.seconds,
    }


def _print_tables(report: dict[str, Any], top: int | None) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    for result in report["results"]:
        name = target_name(result["target"])
        out.print(Text(f"{report['model']} · {result['method']} of {name}", style="bold"))
        table = Table(box=None)
        for column in ("rank", "ROAD", "spread"):
            table.add_column(column, justify="right")
        table.add_column("layer", overflow="fold")
        table.add_column("")
        ranked = sorted(result["layers"], key=lambda one: -one["score"])
        for rank, layer in enumerate(ranked[:top], 1):
            table.add_row(
                str(rank),
                f"{layer['score']:.3f}",
                f"{layer['spread']:.3f}",
                Text(layer["name"]),
                "rounding noise" if layer["degenerate"] else "",
            )
        out.print(table)
        if top is not None and len(ranked) > top:
            out.print(Text(f"and {len(ranked) - top} more: --all lists them"))
        out.print(Text(f"mean over the layers {result['mean']:.3f}"))
        out.print(Text(best_in_words(result)))
    for warning in report["warnings"]:
        out.print(Text(f"warning: {warning}"), soft_wrap=True)
    if report["plot"]:
        out.print(Text(f"{report['plot']}: written"), soft_wrap=True)
