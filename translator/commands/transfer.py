"""`translator transfer`: weights from one framework's model into the other's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from translator.commands import options
from translator.config import KERAS_SUFFIXES, TORCH_SUFFIXES, TransferRequest


@click.command(epilog=options.examples(
    "translator transfer torchvision:resnet50 port.py:resnet50 --weights resnet50.pt -o port.keras",
    "translator transfer trained.keras net.py:Net -o net.safetensors",
))  # fmt: skip
@click.argument("from_", metavar="FROM")
@click.argument("to", metavar="TO")
@click.option(
    "-o", "--output", type=options.FILE, required=True, metavar="OUT",
    help="A .keras file for PyTorch to Keras, a .safetensors or .pt file for Keras to PyTorch.",
)  # fmt: skip
@options.source_options
@click.option("--partial", is_flag=True, help="Transfer what matches, and list the rest.")
@click.option("--fold-epsilon", is_flag=True, help="Change weights so that a differing epsilon computes the same.")
@options.report_options
@click.option("--keep-failed", is_flag=True, help="Keep an output whose proof failed.")
@options.runs
def transfer(
    from_: str, to: str, output: Path, *, reports: tuple[Path, ...], layers: bool, force: bool, keep_failed: bool,
    quiet: bool, **rest: Any,
) -> int:  # fmt: skip
    """Move the weights of FROM into TO: a PyTorch checkpoint into a Keras model of your own, or the other way.

    The suffix of OUT says which way: one of FROM and TO is a PyTorch SOURCE, the other a KERAS model.
    """
    options.check_suffix(output, (*KERAS_SUFFIXES, *TORCH_SUFFIXES))
    options.check_reports(reports)
    to_keras = output.suffix in KERAS_SUFFIXES
    source, keras = (from_, to) if to_keras else (to, from_)
    if source.endswith(KERAS_SUFFIXES):
        raise options.wrong_way(output, source)
    with options.outputs([output, *reports], force=force) as outputs:
        request = TransferRequest(
            source=options.source_request(source, rest),
            keras=keras,
            to_keras=to_keras,
            output=outputs.path(output),
            **rest,
        )
        with options.progress(quiet=quiet) as on_progress:
            from translator.audit.api import transfer_files

            proof = transfer_files(request, on_progress=on_progress)
        proof = options.keep(output, outputs, proof, keep_failed=keep_failed)
        options.write_reports(proof, reports, outputs)
    return options.show(proof, layers=layers, quiet=quiet)
