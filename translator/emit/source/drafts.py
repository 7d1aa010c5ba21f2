"""One line of a template on its way to a statement: its settings as columns, then, once those have code, as source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from translator.emit.source.align import Line, Value, constant_leaves
from translator.emit.source.items import Item
from translator.emit.source.names import SHORT, snake
from translator.emit.source.parameters import Column
from translator.emit.source.program import Condition
from translator.emit.source.roll import split_rows
from translator.emit.source.settings import ABSENT, REQUIRED, defaults, is_default, leading, op_defaults
from translator.emit.source.syntax import literal
from translator.plan.calls import Ref

_WIDE = 3
"""Numbers of one tuple that would all be parameters: the tuple is one instead."""

_TOGETHER = ("axes", "axis")
"""Arguments whose numbers say nothing one by one."""

_OPERANDS = ("x", "x1", "x2")
"""What Keras calls the operands of arithmetic; a parameter of a function of ours would pass for a tensor so."""


@dataclass(slots=True, kw_only=True, eq=False)
class Choice:
    """One leaf that reads a variable, or one of several where bodies differ; `columns[k]` says where it is the k-th."""

    variables: list[str]
    columns: list[Column] = field(default_factory=list)

    @property
    def code(self) -> str:
        """A conditional expression; Python evaluates only the variable that is there."""
        text = self.variables[-1]
        for variable, column in zip(self.variables[-2::-1], self.columns[::-1], strict=True):
            condition = column.condition
            text = f"{variable} if {condition.yes} else {text}" if condition else variable
        return text


@dataclass(slots=True, kw_only=True, eq=False)
class Draft:
    """A line with its columns. settings: (key, column); constants: column, or columns of the elements, by path.

    rows: of a loop: (parameter, how it varies, columns). count: of a loop; a table tells it anyhow.
    """

    line: Line
    reads: list[Choice]
    presence: Column | None = None
    settings: list[tuple[str, Column]] = field(default_factory=list)
    constants: dict[tuple[Any, ...], Column | list[Column]] = field(default_factory=dict)
    rows: list[tuple[str, str, list[Column]]] = field(default_factory=list)
    count: Column | None = None

    @property
    def columns(self) -> Iterator[Column]:
        """All of them, in order."""
        for _, column in self.settings:
            yield from column.parts or (column,)
        for found in self.constants.values():
            for column in found if isinstance(found, list) else (found,):
                yield from column.parts or (column,)
        for _, _, columns in self.rows:
            yield from columns
        counted = all(how != "table" for _, how, _ in self.rows)
        yield from (self.count,) if self.count and counted else ()
        yield from (self.presence,) if self.presence else ()
        for choice in self.reads:
            yield from choice.columns

    def join(self, chosen: Sequence[Column]) -> bool:
        """Make each tuple whole again of which many numbers were chosen as parameters; whether there is one."""
        wide = [column for _, column in self.settings if _many(column.parts, chosen)]
        for column in wide:
            column.parts = []
        paths = [path for path, found in self.constants.items() if isinstance(found, list) and _many(found, chosen)]
        for path in paths:
            found = [ABSENT if item is None else constant_leaves(item)[path] for item in self.line.items]
            key, rel = _argument_name(self.line.some, path), self.line.some.rel
            self.constants[path] = Column(values=found, key=key, rel=rel)
        return bool(wide or paths)

    @property
    def when(self) -> Condition | None:
        """The condition of the statement."""
        return self.presence.condition if self.presence else None


def _many(parts: Sequence[Column], chosen: Sequence[Column]) -> bool:
    """Whether too many of a tuple's numbers are parameters."""
    numbers = [part for column in parts for part in (column.parts or (column,))]
    return sum(any(part is column for column in chosen) for part in numbers) >= _WIDE


def draft_of(line: Line, reads: Sequence[Sequence[Value | None]], variables: dict[Value, str]) -> Draft:
    """The columns of a line."""
    item = line.some
    draft = Draft(line=line, reads=[choice_of(leaf, variables, item.rel) for leaf in reads])
    if not all(line.present):
        draft.presence = Column(values=list(line.present), key=_flag(item), rel=item.rel, kind="presence")
    if item.kind == "layer":
        _layer_columns(draft)
    elif item.kind == "call":
        for key in item.settings:
            values = [ABSENT if i is None else i.settings[key] for i in line.items]
            draft.settings.append((key, Column(values=values, key=key, rel=item.rel)))
    elif item.kind == "loop":
        _loop_columns(draft)
    _constant_columns(draft)
    return draft


def choice_of(leaf: Sequence[Value | None], variables: dict[Value, str], rel: str) -> Choice:
    """What a leaf reads, by body."""
    names = [None if v is None else variables[v] for v in leaf]
    distinct = list(dict.fromkeys(n for n in names if n is not None))
    columns = [
        Column(values=[ABSENT if n is None else n == name for n in names], key=f"use_{name}", rel=rel, kind="choice")
        for name in distinct[:-1]
    ]
    return Choice(variables=distinct, columns=columns)


def settings_code(draft: Draft) -> tuple[tuple[str, str], ...]:
    """The settings that are written: (key, code), "" as the key of those that lead."""
    item = draft.line.some
    if item.kind != "layer":
        return tuple((key, column.code) for key, column in draft.settings)
    first = leading(item.head)
    written = []
    for key, column in draft.settings:
        value = next(iter(column.distinct.values()), ABSENT)
        if len(column.distinct) < 2 and is_default(item.head, key, value):
            continue
        written.append(("" if key in first else key, column.whole))
    return tuple(sorted(written, key=lambda pair: pair[0] != ""))


def arguments_code(draft: Draft) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The call's positional and keyword arguments as code."""
    item = draft.line.some
    reads = iter(draft.reads)
    args = tuple(_argument(arg, (k,), draft, reads) for k, arg in enumerate(item.args))
    kwargs = tuple((key, _argument(arg, (key,), draft, reads)) for key, arg in item.kwargs.items())
    return args, kwargs


def _argument(arg: Any, path: tuple[Any, ...], draft: Draft, reads: Iterator[Choice]) -> str:
    if isinstance(arg, Ref):
        return next(reads).code
    if path in draft.constants:
        found = draft.constants[path]
        if isinstance(found, Column):
            return found.code
        inner = ", ".join(column.whole for column in found)
        return f"[{inner}]" if isinstance(arg, list) else f"({inner},)" if len(found) == 1 else f"({inner})"
    parts = [
        _argument(v, (*path, k), draft, reads) for k, v in (arg.items() if isinstance(arg, dict) else enumerate(arg))
    ]
    if isinstance(arg, dict):
        return "{" + ", ".join(f"{literal(k)}: {p}" for k, p in zip(arg, parts, strict=True)) + "}"
    return f"[{', '.join(parts)}]" if isinstance(arg, list) else f"({', '.join(parts)},)"


def _layer_columns(draft: Draft) -> None:
    items = draft.line.items
    cls = draft.line.some.head
    known = defaults(cls)
    keys = dict.fromkeys(key for item in items if item for key in item.settings)
    order = {key: i for i, key in enumerate(known)}
    for key in sorted(keys, key=lambda k: order.get(k, len(order))):
        default = known.get(key, REQUIRED)
        values = [ABSENT if i is None else i.settings.get(key, default) for i in items]
        column = Column(values=values, key=key, rel=draft.line.some.rel)
        if len(column.distinct) > 1 and _sizes(column):
            column.parts = [
                Column(values=[v[k] if isinstance(v, tuple) else v for v in values], key="size", rel=column.rel)
                for k in range(len(next(iter(column.distinct.values()))))
            ]
        draft.settings.append((key, column))


def _sizes(column: Column) -> bool:
    """Whether its values are tuples of numbers, all as long."""
    values = list(column.distinct.values())
    return all(isinstance(v, tuple) and len(v) == len(values[0]) and all(type(n) is int for n in v) for v in values)


def _constant_columns(draft: Draft) -> None:
    found = [None if item is None else constant_leaves(item) for item in draft.line.items]
    for path, some in constant_leaves(draft.line.some).items():
        values: list[Any] = [ABSENT if f is None else f[path] for f in found]
        key = "table" if isinstance(some, np.ndarray) else _argument_name(draft.line.some, path)
        rel = draft.line.some.rel
        lengths = {len(v) if isinstance(v, tuple | list) else -1 for v in values if v is not ABSENT}
        numbers = isinstance(some, tuple | list) and some and all(type(v) in (int, slice) for v in some)
        if len(lengths) == 1 and numbers and key not in _TOGETHER:
            elements = [[v if v is ABSENT else v[k] for v in values] for k in range(len(some))]
            draft.constants[path] = [_element(column, rel) for column in elements]
        else:
            draft.constants[path] = Column(values=values, key=key, rel=rel)


def _element(values: list[Any], rel: str) -> Column:
    """A number of a shape, or of an index; the bounds of a slice that differs are numbers of their own."""
    column = Column(values=values, key="size", rel=rel)
    if len(column.distinct) > 1 and all(isinstance(v, slice) for v in column.distinct.values()):
        for bound in ("start", "stop", "step"):
            found = [v if v is ABSENT else getattr(v, bound) for v in values]
            sized = all(v is ABSENT or type(v) is int for v in found)
            column.parts.append(Column(values=found, key="size" if sized else bound, rel=rel))
    return column


def _loop_columns(draft: Draft) -> None:
    runs = [None if item is None else item.run for item in draft.line.items]
    rel = draft.line.some.rel
    rows = [None if run is None else run.rows for run in runs]
    draft.count = Column(values=[ABSENT if r is None else len(r) for r in rows], key="blocks", rel=rel)
    split = [None if r is None else split_rows(r) for r in rows]
    for key in next(r for r in rows if r is not None)[0]:
        if any(s is not None and key in s[2] for s in split):
            tables = [ABSENT if r is None else tuple(row[key] for row in r) for r in rows]
            columns, how = [Column(values=tables, key=f"{key}_table", rel=rel)], "table"
        else:
            first = Column(values=[ABSENT if r is None else r[0][key] for r in rows], key=key, rel=rel)
            rest = Column(
                values=[r[1][key] if r is not None and len(r) > 1 else ABSENT for r in rows], key=key, rel=rel
            )
            alike = all(s is None or key in s[0] for s in split)
            columns, how = ([first], "same") if alike else ([first, rest], "first")
        draft.rows.append((key, how, columns))


def _flag(item: Item) -> str:
    """What a parameter that says whether the statement is there would be called."""
    part = next((p for p in item.parts if not p.isdigit()), "")
    return snake(part or item.rel.strip("_0123456789") or SHORT.get(item.head, item.head))


def _argument_name(item: Item, path: tuple[Any, ...]) -> str:
    if isinstance(path[0], str):
        return path[0]
    names = tuple(op_defaults(item.head)) if item.kind == "op" else ()
    name = names[path[0]] if path[0] < len(names) else "value"
    return "value" if name in _OPERANDS else name
