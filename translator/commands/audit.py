"""`translator audit`: any PyTorch model against any Keras model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from translator.commands import options
from translator.config import AuditRequest


@click.command(epilog=options.examples(
    "translator audit models/cifar_resnet.py:resnet models/cifar_resnet_keras.py:resnet",
    "translator audit torchvision:vgg16 keras.applications:VGG16?weights=None --report audit.html",
    "translator audit net.py:Net port.keras --weights net.pt --baseline gaps.json --report audit.xml",
))  # fmt: skip
@click.argument("source")
@click.argument("keras")
@options.source_options
@click.option("--baseline", type=options.FILE, help="Accept exactly the gaps written in this file, no other.")
@options.report_options
@options.runs
def audit(
    source: str, keras: str, *, baseline: Path | None, reports: tuple[Path, ...], layers: bool, force: bool,
    quiet: bool, **rest: Any,
) -> int:  # fmt: skip
    """Compare SOURCE with KERAS layer by layer: every difference named, every parameter accounted for.

    KERAS: model.keras, model.h5, file.py:factory or package.module:factory. Nobody needs to have translated the pair.
    """
    options.check_reports(reports)
    request = AuditRequest(source=options.source_request(source, rest), keras=keras, baseline=baseline)
    with options.outputs(reports, force=force) as outputs:
        with options.progress(quiet=quiet) as on_progress:
            from translator.audit.api import audit_files

            found = audit_files(request, on_progress=on_progress)
        options.write_reports(found, reports, outputs)
    return options.show(found, layers=layers, quiet=quiet)
