"""The layers of a report on a terminal: all of them, or the worst few, in as many columns as the width has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from translator.report import words
from translator.report.grid import Column, Fit, Grid
from translator.verdict import LayerRow

Mark = Callable[[bool], Text]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """One column of the table; the higher its `rank`, the sooner it gives way on a narrow terminal."""

    heading: str
    text: Callable[[LayerRow], str]
    rank: int
    column: Column


_NAME = Column(fit=Fit.MIDDLE, least=18)
_NUMBER = Column(right=True)
_FIELDS = (
    _Field(heading="#", text=lambda r: str(r.depth), rank=7, column=_NUMBER),
    _Field(heading="PyTorch", text=lambda r: r.torch or "–", rank=0, column=_NAME),
    _Field(heading="Keras", text=lambda r: r.keras or "–", rank=0, column=_NAME),
    _Field(heading="type", text=lambda r: r.type or r.type_keras, rank=5, column=Column(fit=Fit.MIDDLE, least=9)),
    _Field(heading="shape", text=lambda r: words.shape(r.shape), rank=6, column=Column()),
    _Field(heading="params", text=lambda r: words.count(r.params_torch), rank=4, column=_NUMBER),
    _Field(heading="in Keras", text=lambda r: words.count(r.params_keras), rank=4, column=_NUMBER),
    _Field(heading="float32", text=lambda r: words.error(r.error_f32), rank=2, column=_NUMBER),
    _Field(heading="float64", text=lambda r: words.error(r.error_f64), rank=1, column=_NUMBER),
    _Field(heading="chain f32", text=lambda r: words.error(r.chain_f32), rank=8, column=_NUMBER),
    _Field(heading="chain f64", text=lambda r: words.error(r.chain_f64), rank=3, column=_NUMBER),
)


def layer_lines(
    rows: Sequence[LayerRow], console: Console, *, width: int, mark: Mark, few: int | None
) -> Iterator[Text]:
    """A heading that says how many are wrong, then the table; `few` limits it to the worst."""
    if not rows:
        return
    ordered = sorted(rows, key=lambda r: r.depth)
    shown = ordered if few is None else few_of(ordered, few)
    wrong = sum(not row.ok for row in rows)
    heading = f"  {wrong:,} of {len(rows):,} wrong" if wrong else f"  {len(rows):,}, each one sound"
    if len(shown) < len(rows):
        heading += f"; the {'first' if wrong >= len(shown) else 'worst'} {len(shown)} here, all with --layers"
    yield from Text.assemble(("Layers, each alone", "bold"), heading).wrap(console, width)
    yield from _table(shown, console, width=width, mark=mark)


def few_of(rows: Sequence[LayerRow], few: int) -> list[LayerRow]:
    """The first wrong ones in order of execution; where fewer are wrong, the largest errors besides."""
    ordered = sorted(rows, key=lambda r: r.depth)
    wrong = [row for row in ordered if not row.ok][:few]
    sound = sorted((row for row in ordered if row.ok), key=words.severity, reverse=True)
    chosen = {id(row) for row in [*wrong, *sound[: few - len(wrong)]]}
    return [row for row in ordered if id(row) in chosen]


def _table(rows: Sequence[LayerRow], console: Console, *, width: int, mark: Mark) -> Iterator[Text]:
    fields = list(_FIELDS)
    while True:
        cells = [_cells(row, fields, mark) for row in rows]
        head = [Text(), *(Text(field.heading, style="dim") for field in fields), Text()]
        notes = Column(fit=Fit.BELOW)
        grid = Grid(columns=(Column(), *(f.column for f in fields), notes), width=width)
        bare = Grid(columns=grid.columns[:-1], width=width)
        if bare.least([row[:-1] for row in [head, *cells]]) <= width or max(f.rank for f in fields) <= 1:
            break
        gone = max(field.rank for field in fields)
        fields = [field for field in fields if field.rank != gone]
    for block in grid.blocks([head, *cells], console):
        yield from block


def _cells(row: LayerRow, fields: Sequence[_Field], mark: Mark) -> list[Text]:
    style = "" if row.ok else "red"
    note = Text(words.clean(row.note), style="dim")
    return [mark(row.ok), *(Text(words.clean(field.text(row)), style=style) for field in fields), note]
