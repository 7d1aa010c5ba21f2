"""Lines of aligned columns that fit a width: words wrap, names lose their middle, numbers stay whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import zip_longest

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

GAP = 2
"""Blank cells between two columns."""


class Fit(Enum):
    """What a column does where the line is too long."""

    WHOLE = auto()
    """Never anything: numbers, marks."""
    WRAP = auto()
    """Goes on in the next line."""
    MIDDLE = auto()
    """Loses its middle: `layer1…conv2`."""
    BELOW = auto()
    """Moves to lines of its own under its row, and wraps there. Only the last column."""
    ALL_BELOW = auto()
    """The same, in every row as soon as one of them is too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """How one column lies: `least` is the width below which it is not made narrower."""

    fit: Fit = Fit.WHOLE
    least: int = 12
    right: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Rows of cells under common widths, `indent` cells from the left.

    under: where a cell that moved below its row starts (None: where the second column does); hang: how much further
    right it goes on.
    """

    columns: tuple[Column, ...]
    width: int
    indent: int = 2
    under: int | None = None
    hang: int = 0

    def blocks(self, rows: Sequence[Sequence[Text]], console: Console) -> list[list[Text]]:
        """Each row as lines no longer than the width, unless whole columns alone are longer."""
        last = self.columns[-1].fit
        columns = self.columns[:-1] if last in (Fit.BELOW, Fit.ALL_BELOW) else self.columns
        widths = self._widths(columns, rows)
        room = self.width - _total(widths, self.indent) - GAP
        fits = [len(columns) == len(self.columns) or row[-1].cell_len <= max(0, room) for row in rows]
        if last is Fit.ALL_BELOW and not all(fits):
            fits = [not row[-1].plain for row in rows]
        return [self._block(columns, widths, row, fit, console) for row, fit in zip(rows, fits, strict=True)]

    def _block(
        self, columns: Sequence[Column], widths: Sequence[int], row: Sequence[Text], fits: bool, console: Console
    ) -> list[Text]:
        cells = [self._cell(c, w, t, console) for c, w, t in zip(columns, widths, row, strict=False)]
        if len(columns) < len(row) and fits:
            columns, widths = [*columns, Column()], [*widths, row[-1].cell_len]
            cells.append([row[-1]])
        lines = [self._line(columns, widths, parts) for parts in zip_longest(*cells)]
        return lines if fits else [*lines, *self._under(row[-1], widths[0], console)]

    def least(self, rows: Sequence[Sequence[Text]]) -> int:
        """The smallest width that keeps every column above its least."""
        natural = _natural(self.columns, rows)
        floor = [w if c.fit is Fit.WHOLE else min(w, c.least) for c, w in zip(self.columns, natural, strict=True)]
        return _total(floor, self.indent)

    def _widths(self, columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> list[int]:
        widths = _natural(columns, rows)
        while _total(widths, self.indent) > self.width:
            room = {i: w - c.least for i, (c, w) in enumerate(zip(columns, widths, strict=True)) if _can_shrink(c, w)}
            if not room:
                break
            widest = max(room, key=lambda i: (widths[i], i))
            widths[widest] -= 1
        return widths

    def _cell(self, column: Column, width: int, text: Text, console: Console) -> list[Text]:
        if text.cell_len <= width:
            return [text]
        if column.fit is Fit.MIDDLE:
            return [Text(middle(text.plain, width), style=text.style)]
        if column.fit is Fit.WHOLE:
            return [text]
        return list(text.wrap(console, width))

    def _line(self, columns: Sequence[Column], widths: Sequence[int], parts: Sequence[Text | None]) -> Text:
        line = Text(" " * self.indent)
        for i, (column, width, part) in enumerate(zip(columns, widths, parts, strict=True)):
            cell = part.copy() if part is not None else Text()
            cell.rstrip()
            blank = " " * max(0, width - cell.cell_len)
            line.append_text(Text(blank) + cell if column.right else cell + Text(blank))
            if i + 1 < len(widths):
                line.append(" " * GAP)
        line.rstrip()
        return line

    def _under(self, text: Text, first: int, console: Console) -> list[Text]:
        start = self.under if self.under is not None else self.indent + first + GAP
        wrapped = text.wrap(console, max(16, self.width - start - self.hang))
        return [Text(" " * (start + (self.hang if i else 0))) + _stripped(line) for i, line in enumerate(wrapped)]


def middle(text: str, width: int) -> str:
    """The text in at most `width` cells: its start, an ellipsis, its end."""
    if cell_len(text) <= width:
        return text
    keep = max(1, width - 1)
    head, tail = (keep + 1) // 2, keep // 2
    end = text[-tail:] if tail else ""
    while cell_len(end) > tail:
        end = end[1:]
    return set_cell_size(text, head) + "…" + end


def _stripped(text: Text) -> Text:
    line = text.copy()
    line.rstrip()
    return line


def _can_shrink(column: Column, width: int) -> bool:
    return column.fit in (Fit.WRAP, Fit.MIDDLE) and width > column.least


def _natural(columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> list[int]:
    return [max((row[i].cell_len for row in rows), default=0) for i in range(len(columns))]


def _total(widths: Sequence[int], indent: int) -> int:
    return indent + sum(widths) + GAP * max(0, len(widths) - 1)
