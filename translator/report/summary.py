"""The layer table of one model, of either framework: name, type, output shape, parameters, buffers.

Parameters that layers share are counted once, where they come first; so the rows add up to the model's total.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.text import Text

from translator import runtime
from translator.errors import InputError
from translator.report import words
from translator.report.grid import Column, Fit, Grid
from translator.types import Shape

if TYPE_CHECKING:
    from translator.capture.source import LoadedSource
    from translator.keras_source import LoadedKeras


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRow:
    """One call of a PyTorch module, or one Keras layer.

    call: how many calls of that module came before. shapes: of its output tensors; empty: it was never called by
    itself, or its shape is unknown. params: elements counted here, `shared` those that an earlier row has counted.
    buffers: in PyTorch elements of its buffers, in Keras those of its weights that are not trained. inputs: of a Keras
    layer, as Keras prints them: `conv2d[0][0]`.
    """

    name: str
    type: str
    shapes: tuple[Shape, ...]
    params: int
    buffers: int
    shared: int = 0
    call: int = 0
    inputs: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryTable:
    """All rows of one model and its totals. PyTorch counts buffers apart; in Keras they are part of `total`."""

    framework: Literal["PyTorch", "Keras"]
    name: str
    rows: tuple[SummaryRow, ...]
    total: int
    trainable: int
    buffers: int
    statistics: int = 0

    @property
    def non_trainable(self) -> int:
        """Parameters that are not trained: frozen ones; in Keras also statistics."""
        return self.total - self.trainable


def summary(model: Any, example_inputs: Any = None) -> SummaryTable:
    """The layer table of an `nn.Module`, run once on its example inputs, or of a Keras model, which needs none.

    Raises InputError for anything else, and for an `nn.Module` without example inputs.
    """
    import sys

    runtime.prepare()
    torch, keras = sys.modules.get("torch"), sys.modules.get("keras")
    # Keras first: on its torch backend a Keras model is an nn.Module, too.
    if keras is not None and isinstance(model, keras.Model):
        from translator.report.summary_keras import keras_summary

        return keras_summary(model)
    if torch is not None and isinstance(model, torch.nn.Module):
        if example_inputs is None:
            raise InputError("summary: a PyTorch model is run once to be summarised", fix="give example_inputs, too")
        from translator.report.summary_torch import torch_summary

        return torch_summary(model, example_inputs)
    raise InputError(f"summary: got {type(model).__name__}, neither an nn.Module nor a keras.Model")


def summarise(loaded: LoadedSource | LoadedKeras) -> SummaryTable:
    """The layer table of a model that was loaded from what the user named."""
    from translator.keras_source import LoadedKeras

    if isinstance(loaded, LoadedKeras):
        from translator.report.summary_keras import keras_summary

        return keras_summary(loaded.model)
    from translator.report.summary_torch import torch_summary

    return torch_summary(loaded.module, loaded.example_inputs, loaded.example_kwargs)


def render(table: SummaryTable, console: Console) -> None:
    """Print the table to fit the console's width; long names lose their middle, numbers stay whole."""
    width = max(40, console.width)
    connected = table.framework == "Keras" and any(len(row.inputs) > 1 for row in table.rows)
    columns: list[Column] = [
        Column(right=True),
        Column(fit=Fit.MIDDLE, least=8),
        Column(fit=Fit.MIDDLE, least=6),
        Column(fit=Fit.WRAP, least=15),
        Column(right=True),
        Column(right=True),
    ]
    cells = [_cells(i, row) for i, row in enumerate(table.rows, start=1)]
    lines = [_head(table), *cells]
    if connected:
        wide = [*columns, Column(fit=Fit.WRAP, least=24)]
        wired = [[*line, Text(text)] for line, text in zip(lines, ["inputs", *map(_inputs, table.rows)], strict=True)]
        if Grid(columns=tuple(wide), width=width, indent=0).least(wired) <= width:
            columns, lines = wide, wired
    grid = Grid(columns=tuple(columns), width=width, indent=0)
    title = Text.assemble((table.framework, "bold"), "  ", words.clean(table.name))
    printed = [title, Text(), *(line for block in grid.blocks(lines, console) for line in block), Text()]
    closing = [line for text in totals(table) for line in Text(text).wrap(console, width)]
    for line in [*printed, *closing]:
        console.print(_encodable(line, console), soft_wrap=True, highlight=False, markup=False)


def totals(table: SummaryTable) -> list[str]:
    """The closing lines: the total, what of it is trained, and what else the model holds."""
    lines = [
        f"{words.amount(len(table.rows), 'row')}",
        f"{words.amount(table.total, 'parameter')}: {table.trainable:,} trainable, {table.non_trainable:,} not",
    ]
    if table.framework == "PyTorch" and table.buffers:
        split = f": {table.statistics:,} BN statistics, {table.buffers - table.statistics:,} others"
        told = split if table.statistics else ""
        lines.append(f"{words.amount(table.buffers, 'buffer element')}{told}; not counted as parameters")
    if any(row.shared for row in table.rows):
        lines.append("(n): shared with an earlier row, and counted there")
    return lines


def to_csv(table: SummaryTable) -> str:
    """The rows as CSV: shapes as `-1x16x32x32` for PyTorch and `Nonex32x32x16` for Keras, as their own tools write."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(["index", "name", "type", "output_shape", "params", "buffers", "connected_to"])
    batch = "-1" if table.framework == "PyTorch" else "None"
    for i, row in enumerate(table.rows, start=1):
        shapes = " ".join("x".join(batch if d is None else str(d) for d in shape) for shape in row.shapes)
        writer.writerow([i, row.name, row.type, shapes, row.params, row.buffers, " ".join(row.inputs)])
    return target.getvalue()


def _head(table: SummaryTable) -> list[Text]:
    buffers = "buffers" if table.framework == "PyTorch" else "not trained"
    names = ["#", "name", "type", "output", "params", buffers]
    return [Text(name, style="dim") for name in names]


def _cells(index: int, row: SummaryRow) -> list[Text]:
    again = f" ({row.call + 1})" if row.call else ""
    shapes = ", ".join(map(words.shape, row.shapes)) or row.note or "?"
    params = f"({row.shared:,})" if row.shared and not row.params else words.count(row.params)
    style = "" if row.params or row.buffers else "dim"
    texts = [str(index), words.clean(row.name) + again, words.clean(row.type), shapes, params, words.count(row.buffers)]
    return [Text(text, style=style) for text in texts]


def _inputs(row: SummaryRow) -> str:
    return words.clean(", ".join(row.inputs))


def _encodable(line: Text, console: Console) -> Text:
    if console.options.ascii_only:
        line.plain = line.plain.replace("…", "~").encode("ascii", "replace").decode("ascii")
    return line


def counted_once(tensors: Sequence[tuple[int, int]], seen: set[int]) -> tuple[int, int]:
    """(new, shared) elements among tensors given as (identity, elements); the identities are then in `seen`."""
    new = shared = 0
    for identity, elements in tensors:
        if identity in seen:
            shared += elements
        else:
            new += elements
            seen.add(identity)
    return new, shared
