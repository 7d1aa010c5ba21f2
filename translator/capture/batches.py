"""Inputs that have one batch, though a trace counts the rows of each for itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir


def shared_batches(program: Any) -> dict[str, str]:
    """The symbols of axis 0 of inputs that had as many rows as an earlier input: symbol → that input's symbol.

    program: an ExportedProgram.
    """
    first: dict[int, str] = {}
    found: dict[str, str] = {}
    names = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        shape: Any = getattr(node.meta.get("val"), "shape", None) if node.name in names else None
        rows = getattr(shape[0], "node", None) if shape else None
        if rows is None or not rows.expr.is_Symbol or rows.hint is None:
            continue
        symbol = str(rows.expr)
        if first.setdefault(rows.hint, symbol) != symbol:
            found[symbol] = first[rows.hint]
    return found


def unite(model: ir.Model, symbols: Mapping[str, str]) -> None:
    """Give the sizes in `symbols` one name in every shape of the model, in place."""
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, symbols)) + r")\b")
    values = {id(v): v for v in (*model.graph.inputs, *model.graph.outputs)}
    values |= {id(v): v for node in model.graph.all_nodes() for v in node.outputs}
    for value in values.values():
        if value.shape is not None:
            dims = [
                d if isinstance(d, int) else pattern.sub(lambda m: symbols[m[0]], str(d.value)) for d in value.shape
            ]
            value.shape = ir.Shape(dims)
