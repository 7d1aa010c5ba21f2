"""The command line, `translator`: what it offers. Each command stands in translator/commands/."""

from __future__ import annotations

from collections.abc import Sequence

import click

from translator.commands.audit import audit
from translator.commands.convert import convert
from translator.commands.ops import ops
from translator.commands.options import examples
from translator.commands.parity import parity
from translator.commands.source import source
from translator.commands.summary import summary
from translator.commands.transfer import transfer


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples(
        "translator convert torchvision:resnet18 -o resnet18.keras --report proof.html",
        "translator audit models/cifar_resnet.py:resnet models/cifar_resnet_keras.py:resnet",
    ),
)
@click.version_option(package_name="translator", prog_name="translator")
def cli() -> None:
    """PyTorch models to native Keras 3 models, with a proof that both are the same function.

    Exit status: 0 proven, 1 a check failed, 2 the input can't be used or isn't supported, 3 a bug of translator.
    """


for command in (convert, audit, transfer, source, summary, parity, ops):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    cli.main(args=list(arguments) if arguments is not None else None, prog_name="translator")
