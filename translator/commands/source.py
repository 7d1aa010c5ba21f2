"""`translator source`: the network as Keras code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from translator.commands import options
from translator.config import Style, WriteSourceRequest


@click.command(epilog=options.examples(
    "translator source torchvision:resnet50 -o resnet50.py --style functional",
    "translator source models/cifar_resnet.py:resnet -o resnet.py --style subclass --report proof.json",
    "translator source torchvision:resnet18 --weights resnet18.pth -o resnet18.py --save-weights",
))  # fmt: skip
@click.argument("source")
@click.option("-o", "--output", type=options.FILE, required=True, metavar="FILE.py", help="The Python file to write.")
@click.option(
    "--style", type=click.Choice(["functional", "subclass", "sequential"]), default="functional", show_default=True
)
@options.source_options
@click.option("--save-weights", is_flag=True, help="Write FILE.weights.h5 too, for build_model().load_weights().")
@options.report_options
@click.option("--keep-failed", is_flag=True, help="Keep an output whose proof failed.")
@options.runs
def source(
    source: str, output: Path, style: Style, *, save_weights: bool, reports: tuple[Path, ...], layers: bool,
    force: bool, keep_failed: bool, quiet: bool, **rest: Any,
) -> int:  # fmt: skip
    """Write SOURCE as a Python file that needs only Keras, and prove that the model it builds is the same.

    The functional and sequential styles offer build_model(), the subclass style a Model class and build_model().
    """
    options.check_suffix(output, (".py",))
    options.check_reports(reports)
    weights = (output.with_suffix(".weights.h5"),) if save_weights else ()
    with options.outputs([output, *weights, *reports], force=force) as outputs:
        request = WriteSourceRequest(
            source=options.source_request(source, rest), output=outputs.path(output), style=style,
            weights=next(map(outputs.path, weights), None),
        )  # fmt: skip
        with options.progress(quiet=quiet) as on_progress:
            from translator.source_writer import write_source_file

            proof = write_source_file(request, on_progress=on_progress)
        proof = options.keep(output, outputs, proof, keep_failed=keep_failed, also=weights)
        options.write_reports(proof, reports, outputs)
    return options.show(proof, layers=layers, quiet=quiet)
