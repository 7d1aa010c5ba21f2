"""`translator summary`: the layer table of one model, of either framework."""

from __future__ import annotations

from typing import Any

import click

from translator.commands import options


@click.command(epilog=options.examples(
    "translator summary models/cifar_resnet.py:resnet",
    "translator summary torchvision:resnet50 --input-shape 2,3,224,224",
    "translator summary model.keras",
))  # fmt: skip
@click.argument("model", metavar="SOURCE|KERAS")
@options.source_options
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values instead of a table.")
@options.runs
def summary(model: str, *, as_csv: bool, quiet: bool, **rest: Any) -> int:
    """Print a model's layers: name, type, output shape, parameters and buffers.

    Which framework the model is of shows in what its factory returns.
    """
    from translator.commands.either import load_either
    from translator.report.summary import render, summarise, to_csv

    with options.progress(quiet=quiet) as on_progress:
        on_progress("loading")
        loaded = load_either(options.source_request(model, rest))
        table = summarise(loaded)
    with options.reader_may_leave():
        if as_csv:
            click.echo(to_csv(table), nl=False)
        elif not quiet:
            render(table, options.console())
    return 0
