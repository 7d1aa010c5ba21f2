"""Stages of a network, each a run of blocks of one kind, as one loop over a table: of stages, or of single blocks."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from translator.emit.source.items import Item, Stages
from translator.emit.source.names import free, identifier
from translator.emit.source.roll import split_rows
from translator.emit.source.syntax import literal
from translator.plan.calls import Ref

_LEAST = 3
_WIDEST = 7
_WIDE_BLOCKS = 6
_DIGITS = re.compile(r"\d+")
_NUMBERED = re.compile(r"(.*?)_?(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """One stage: the names of its blocks are `{name}{start + k}`; a lone block without a number has start None."""

    name: str
    start: int | None
    rows: tuple[Mapping[str, Any], ...]


def roll_stages(items: Sequence[Item], outputs: Collection[str]) -> list[Item]:
    """The items of the whole network with consecutive stages as one item. outputs: of the network."""
    readers: dict[str, list[Item]] = {}
    for item in items:
        for value in dict.fromkeys(item.reads()):
            readers.setdefault(value, []).append(item)
    rolled: list[Item] = []
    at = 0
    while at < len(items):
        run = _longest(items, at, readers, outputs)
        stages = _stages(run) if len(run) >= _LEAST else None
        if stages is None:
            run = run[:1]
            rolled += run
        else:
            rolled.append(_item(run, stages))
        at += len(run)
    return rolled


def rows_code(rows: Sequence[Sequence[Any]]) -> str:
    """A table as code."""
    return literal(tuple(tuple(row) for row in rows))


def _longest(items: Sequence[Item], at: int, readers: Mapping[str, list[Item]], outputs: Collection[str]) -> list[Item]:
    run = [items[at]]
    if not _is_block(run[0]):
        return run
    for item in items[at + 1 :]:
        last = run[-1]
        result = last.outputs[0]
        alone = result not in outputs and readers.get(result) == [item]
        carried = _carried(item)
        if not (_is_block(item) and item.head == last.head and alone and item.args[carried] == Ref(result)):
            break
        if [a for k, a in enumerate(item.args) if k != carried] != [a for k, a in enumerate(last.args) if k != carried]:
            break
        run.append(item)
    return run


def _is_block(item: Item) -> bool:
    if item.kind not in ("call", "loop") or len(item.outputs) != 1 or not all(isinstance(a, Ref) for a in item.args):
        return False
    return item.run is None or not item.run.gathers


def _carried(item: Item) -> int:
    return item.run.carried if item.run is not None else 0


def _stage(item: Item) -> _Stage:
    if item.run is not None:
        return _Stage(
            name=item.rel.rstrip("_") if item.rel.endswith("_") else item.rel, start=item.run.start, rows=item.run.rows
        )
    match = _NUMBERED.fullmatch(item.rel)
    if match is None or match[2] != str(int(match[2])):
        return _Stage(name=item.rel, start=None, rows=(item.settings,))
    return _Stage(name=match[1], start=int(match[2]), rows=(item.settings,))


def _stages(run: Sequence[Item]) -> Stages | None:
    stages = [_stage(item) for item in run]
    return _by_stage(run, stages) or _by_block(run)


def _by_stage(run: Sequence[Item], stages: Sequence[_Stage]) -> Stages | None:
    """A row for each stage; None where more than the first blocks differ, or the table would be too wide."""
    start = stages[0].start
    underscored = all(_rel(item, stage) == f"{stage.name}_" for item, stage in zip(run, stages, strict=True))
    if start is None or any(s.start != start for s in stages) or not underscored:
        return None
    numbers, label = _numbers([s.name for s in stages])
    columns: list[tuple[str, list[Any]]] = [("stage", numbers)]
    counts = [len(s.rows) for s in stages]
    count = _column(columns, "blocks", counts)
    arguments: dict[str, str] = {}
    for key in stages[0].rows[0]:
        if any(key in split_rows(s.rows)[2] for s in stages):
            return None
        firsts = [s.rows[0][key] for s in stages]
        first = _column(columns, key, firsts)
        rest = _column(columns, f"next_{key}", _rest(firsts, [s.rows[1:] for s in stages], key))
        arguments[key] = first_or_rest([first, rest], start)
    if len(columns) > _WIDEST:
        return None
    stop = count if not start else str(int(count) + start) if count.isdigit() else f"{count} + {start}"
    names = ", ".join(name for name, _ in columns)
    table = rows_code(list(zip(*(values for _, values in columns), strict=True)))
    headers = ((names, table), ("i", f"range({start}, {stop})" if start else f"range({stop})"))
    return Stages(headers=headers, arguments=arguments, name=f'f"{label}_{{i}}"', carried=_carried(run[0]))


def _numbers(names: Sequence[str]) -> tuple[list[Any], str]:
    """What differs between the names of stages, their numbers if that is all, and the name made of it."""
    numbers = [set(_DIGITS.findall(name)) for name in names]
    forms = {_DIGITS.sub("{stage}", name) for name in names}
    if len(forms) == 1 and all(len(n) == 1 and next(iter(n)) == str(int(next(iter(n)))) for n in numbers):
        return [int(next(iter(n))) for n in numbers], forms.pop()
    return list(names), "{stage}"


def _rel(item: Item, stage: _Stage) -> str:
    return item.rel if item.run is not None else item.rel.removesuffix(str(stage.start))


def _by_block(run: Sequence[Item]) -> Stages | None:
    """A row for each block; None where the table would be too wide."""
    names: list[str] = []
    rows: list[Mapping[str, Any]] = []
    for item in run:
        if item.run is None:
            names.append(item.rel)
            rows.append(item.settings)
        else:
            names += [f"{item.rel}{item.run.start + k}" for k in range(len(item.run.rows))]
            rows += item.run.rows
    columns: list[tuple[str, list[Any]]] = [("label", names)]
    arguments = {key: _column(columns, key, [row[key] for row in rows]) for key in rows[0]}
    if len(columns) > _WIDE_BLOCKS:
        return None
    table = rows_code(list(zip(*(values for _, values in columns), strict=True)))
    headers = ((", ".join(name for name, _ in columns), table),)
    if len(columns) == 1:
        headers = (("label", literal(tuple(names))),)
    return Stages(headers=headers, arguments=arguments, name="label", carried=_carried(run[0]))


def _rest(firsts: list[Any], rows: Sequence[Sequence[Mapping[str, Any]]], key: str) -> list[Any]:
    """What follows the first block in each stage; where nothing does, what makes the table simplest."""
    known = {literal(r[0][key]): r[0][key] for r in rows if r}
    same = [r[0][key] if r else first for r, first in zip(rows, firsts, strict=True)]
    if len(known) == 1 and [literal(v) for v in same] != [literal(v) for v in firsts]:
        return list(known.values()) * len(firsts)
    return same


def _column(columns: list[tuple[str, list[Any]]], key: str, values: list[Any]) -> str:
    """The code of a value that may differ from row to row; a column is added where it does."""
    texts = {literal(v) for v in values}
    if len(texts) == 1:
        return texts.pop()
    for name, others in columns:
        if [literal(v) for v in others] == [literal(v) for v in values]:
            return name
    name = free(identifier(key), {"i", "label", *(n for n, _ in columns)})
    columns.append((name, values))
    return name


def first_or_rest(codes: Sequence[str], start: int) -> str:
    """Code that is one thing in the first turn of a loop over `i`, and another in the rest."""
    if len(codes) == 1 or codes[0] == codes[1] or not codes[1]:
        return codes[0]
    first, rest = codes
    match first, rest:
        case "True", "False":
            return f"i == {start}"
        case "False", "True":
            return f"i > {start}"
    return f"{first} if i == {start} else {rest}"


def _item(run: Sequence[Item], stages: Stages) -> Item:
    first = run[0]
    return Item(
        kind="call", head=first.head, function=first.function, rel=first.rel, parts=first.parts[:-1], args=first.args,
        kwargs={}, outputs=run[-1].outputs, stages=stages,
    )  # fmt: skip
