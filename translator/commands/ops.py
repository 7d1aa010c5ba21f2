"""`translator ops`: what is supported, read off the rules themselves."""

from __future__ import annotations

import json

import click

from translator.commands import options


@click.command(epilog=options.examples("translator ops", "translator ops --json"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@options.runs
def ops(*, as_json: bool, quiet: bool) -> int:
    """List the ONNX ops that the native engine translates, and what each becomes in Keras."""
    from translator.plan.registry import supported

    rules = [{"op": r.op, "since": r.since, "keras": r.keras, "summary": r.summary} for r in supported()]
    if quiet:
        return 0
    if as_json:
        click.echo(json.dumps(rules, indent=2))
        return 0
    from rich.table import Table

    table = Table("op", "since opset", "Keras", "rule", title=f"{len(rules)} ONNX ops", title_justify="left")
    for rule in rules:
        table.add_row(*(str(value) for value in rule.values()))
    options.console().print(table)
    return 0
