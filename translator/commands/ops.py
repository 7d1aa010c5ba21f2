"""`translator ops`: what is supported, read off the rules themselves."""

from __future__ import annotations

import json
from typing import Any

import click

from translator.commands import options


@click.command(epilog=options.examples("translator ops", "translator ops --json"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@options.runs
def ops(*, as_json: bool, quiet: bool) -> int:
    """List the ONNX ops that the native engine translates, and what each becomes in Keras."""
    from translator.plan.registry import supported

    rules = [{"op": r.op, "since": r.since, "keras": r.keras, "summary": r.summary} for r in supported()]
    with options.reader_may_leave():
        if as_json:
            click.echo(json.dumps(rules, indent=2))
        elif not quiet:
            _print_table(rules)
    return 0


def _print_table(rules: list[dict[str, Any]]) -> None:
    from rich.table import Column, Table

    op, title = Column("op", no_wrap=True), f"{len(rules)} ONNX ops"
    table = Table(op, "since opset", "Keras", "rule", title=title, title_justify="left")
    for rule in rules:
        table.add_row(*(str(value) for value in rule.values()))
    options.console().print(table)
