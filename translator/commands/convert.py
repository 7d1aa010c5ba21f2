"""`translator convert`: a PyTorch model becomes a native Keras file, together with its proof."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from translator.commands import options
from translator.config import ConvertRequest, EngineName

if TYPE_CHECKING:
    from torch import nn

    from translator.engines.result import EngineResult


@click.command(epilog=options.examples(
    "translator convert torchvision:resnet50 -o resnet50.keras",
    "translator convert models/cifar_resnet.py:resnet --weights resnet.ckpt -o resnet.keras --report proof.html",
    "translator convert model.onnx -o net.keras",
    "translator convert my.package:build?num_classes=10 --input-shape 2,3,32,32 -o net.keras",
))  # fmt: skip
@click.argument("source")
@click.option("-o", "--output", type=options.FILE, required=True, metavar="OUT.keras", help="The Keras file to write.")
@options.source_options
@click.option("--engine", type=click.Choice(["native", "onnx2keras"]), default="native", show_default=True)
@click.option("--fold", is_flag=True, help="Fold each BatchNorm into the convolution before it.")
@click.option("--dynamic-hw", is_flag=True, help="A model for images of any height and width, where PyTorch's is one.")
@click.option(
    "--exact-batchnorm", is_flag=True, help="PyTorch's running variance in training; the file needs a registered class."
)
@options.report_options
@click.option("--keep-failed", is_flag=True, help="Keep an output whose proof failed.")
@options.runs
def convert(
    source: str, output: Path, engine: EngineName, *, reports: tuple[Path, ...], layers: bool, quiet: bool, **rest: Any
) -> int:
    """Translate SOURCE into a Keras file and prove that it is the same function.

    SOURCE: torchvision:NAME, timm:NAME, hf:FOLDER, program.pt2, model.onnx, file.py:factory or package.module:factory,
    with the factory's arguments as ?name=value&other=value. Beside OUT.keras stands OUT.weightmap.json, which says what
    tensor went where.
    The files appear only if the proof holds.
    """
    options.check_suffix(output, (".keras",))
    options.check_reports(reports)
    request = ConvertRequest(
        source=options.source_request(source, rest), output=output, engine=engine, reports=reports, **rest
    )
    with options.progress(quiet=quiet) as on_progress:
        from translator.pipeline import convert_file

        proof = convert_file(request, on_progress=on_progress, remake=_remake(request))
    return options.show(proof, layers=layers, quiet=quiet)


def _remake(request: ConvertRequest) -> Callable[[EngineResult, nn.Module], EngineResult] | None:
    """What is done to the translated model before its proof."""
    if not request.exact_batchnorm:
        return None

    def exact(result: EngineResult, module: nn.Module) -> EngineResult:
        from translator.training.batchnorm import with_exact_result

        return with_exact_result(result, module)

    return exact
