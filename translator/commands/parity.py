"""`translator parity`: both models trained side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from translator.commands import options
from translator.config import ParityRequest


@click.command(epilog=options.examples(
    "translator parity models/cifar_resnet.py:resnet --steps 50 --optimizer adam",
    "translator parity net.py:Net port.py:build --weights net.pt --report parity.html",
))  # fmt: skip
@click.argument("source")
@click.argument("keras", required=False)
@options.source_options
@click.option("--steps", default=50, show_default=True, type=click.IntRange(min=1), help="Optimizer steps to compare.")
@click.option("--optimizer", default="sgd", show_default=True, help="sgd, adam, adamw or rmsprop.")
@click.option("--learning-rate", default=0.01, show_default=True)
@click.option("--batch", default=8, show_default=True, type=click.IntRange(min=2), help="Examples in each step.")
@click.option("--exact-batchnorm", is_flag=True, help="Build the translated model with PyTorch's BatchNorm statistics.")
@click.option("--float32/--no-float32", default=True, show_default=True, help="Show how far float32 runs drift apart.")
@options.report_options
@options.runs
def parity(
    source: str, keras: str | None, *, reports: tuple[Path, ...], layers: bool, force: bool, quiet: bool, **rest: Any
) -> int:
    """Train SOURCE and its Keras twin on the same batches and compare gradients, statistics and weights, step by step.

    KERAS: a Keras model of your own; without it, SOURCE is translated.
    """
    options.check_reports(reports)
    request = ParityRequest(source=options.source_request(source, rest), keras=keras, **rest)
    with options.outputs(reports, force=force) as outputs:
        with options.progress(quiet=quiet) as on_progress:
            from translator.training.parity import run_parity

            found = run_parity(request, on_progress=on_progress)
        for path in reports:
            from translator.training.parity_forms import write_parity

            write_parity(found, outputs.path(path))
            outputs.commit(path)
    if not quiet:
        from translator.training.parity_text import render

        render(found, options.console(), layers=layers)
    return found.exit_status
