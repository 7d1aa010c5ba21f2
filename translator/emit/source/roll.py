"""Runs of calls of one function become loops: a chain of blocks, or blocks that gather what all before them made."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from translator.emit.source.items import Item, Run
from translator.emit.source.syntax import literal
from translator.plan.calls import Ref, refs

_NUMBERED = re.compile(r"(.*?)(\d+)")
_TABLE = 4
"""Calls that differ in more than their first are a loop over a table from this many on; one fewer, if in one thing."""


def roll(items: Sequence[Item], outputs: Collection[str]) -> list[Item]:
    """The items with every run worth it as one item. outputs: values that are read outside."""
    items = list(items)
    readers: dict[str, list[Item]] = {}
    for item in items:
        for value in dict.fromkeys(item.reads()):
            readers.setdefault(value, []).append(item)
    rolled: list[Item] = []
    at = 0
    while at < len(items):
        run = _longest(items, at, readers, outputs)
        if len(run) > 1 and _worth(run) and _gathered(run, readers, outputs):
            rolled.append(_loop(run))
        else:
            run = run[:1]
            rolled += run
        at += len(run)
    return rolled


def as_loops(bodies: Sequence[Sequence[Item]]) -> None:
    """Let a single call be a loop of one where another body of the class has a loop in its place. Changes the items."""
    loops = {(i.head, i.rel): i for items in bodies for i in items if i.kind == "loop" and not _names(i)}
    for items in bodies:
        for item in items:
            match = _NUMBERED.fullmatch(item.rel) if item.kind == "call" else None
            if match is None or (item.head, match[1]) not in loops:
                continue
            like = loops[item.head, match[1]]
            run = like.run
            if run is not None and run.start == int(match[2]) and not run.gathers:
                item.kind, item.rel = "loop", match[1]
                item.run = Run(start=run.start, rows=(item.settings,), carried=run.carried)


def split_rows(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str], list[str]]:
    """Parameters that are the same in all rows, those where only the first row differs, and the others."""
    same, first, other = [], [], []
    for key in rows[0] if rows else ():
        texts = [literal(row[key]) for row in rows]
        if len(set(texts)) == 1:
            same.append(key)
        elif len(set(texts[1:])) == 1:
            first.append(key)
        else:
            other.append(key)
    return same, first, other


def _names(item: Item) -> bool:
    return item.run is None or bool(item.run.names)


def _longest(
    items: Sequence[Item], start: int, readers: Mapping[str, list[Item]], outputs: Collection[str]
) -> list[Item]:
    """The longest run of calls from here on that a loop can make."""
    run = [items[start]]
    if run[0].kind != "call" or not _NUMBERED.fullmatch(run[0].rel):
        return run
    carried: int | None = None
    for item in items[start + 1 :]:
        last = run[-1]
        if item.kind != "call" or item.head != last.head or not _follows(last.rel, item.rel):
            break
        step = _gathers(last, item) if _is_list(item) else _carries(last, item, readers, outputs)
        if step is None or (carried is not None and step != carried):
            break
        carried = step
        run.append(item)
    return run


def _follows(before: str, after: str) -> bool:
    a, b = _NUMBERED.fullmatch(before), _NUMBERED.fullmatch(after)
    return a is not None and b is not None and a[1] == b[1] and int(b[2]) == int(a[2]) + 1 and b[2] == str(int(b[2]))


def _is_list(item: Item) -> bool:
    return len(item.args) == 1 and isinstance(item.args[0], list)


def _carries(before: Item, after: Item, readers: Mapping[str, list[Item]], outputs: Collection[str]) -> int | None:
    """The argument that hands one call's result to the next, if that is all that changes and nobody else reads it."""
    if len(before.outputs) != 1 or before.outputs[0] in outputs or len(before.args) != len(after.args):
        return None
    result = before.outputs[0]
    changed = [k for k, (a, b) in enumerate(zip(before.args, after.args, strict=True)) if a != b]
    if len(changed) != 1 or after.args[changed[0]] != Ref(result) or readers.get(result) != [after]:
        return None
    return changed[0]


def _gathers(before: Item, after: Item) -> int | None:
    if len(before.outputs) == 1 and after.args[0] == [*before.args[0], Ref(before.outputs[0])]:
        return -1
    return None


def _worth(run: Sequence[Item]) -> bool:
    """Whether a loop reads better than the calls: most arguments stay, or there are many calls of a list of modules."""
    same, first, other = split_rows([item.settings for item in run])
    if len(run) == 2 and any(_is_size(item.settings[key]) for item in run for key in first):
        return False
    listed = len(run[0].parts) > 1 or run[0].parts[-1].rpartition(".")[2].isdigit()
    if not listed:
        return not first and not other
    enough = _TABLE if len(first) + len(other) > 1 else _TABLE - 1
    return len(run) >= enough or (not other and len(first) <= max(2, len(same)))


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 4


def _loop(run: Sequence[Item]) -> Item:
    first, match = run[0], _NUMBERED.fullmatch(run[0].rel)
    gathers = _is_list(run[-1])
    rows = tuple(item.settings for item in run)
    start = int(match[2]) if match else 0
    changed = [k for k, (a, b) in enumerate(zip(first.args, run[1].args, strict=True)) if a != b]
    return Item(
        kind="loop", head=first.head, function=first.function, rel=match[1] if match else "", parts=first.parts[:-1],
        args=first.args, kwargs={}, run=Run(start=start, rows=rows, carried=changed[0], gathers=gathers),
        outputs=(f"*{first.outputs[0]}",) if gathers else run[-1].outputs,
    )  # fmt: skip


def _gathered(run: Sequence[Item], readers: Mapping[str, list[Item]], outputs: Collection[str]) -> bool:
    """Where the run gathers a list, let the readers of the whole list read the loop's; False if something else is read.

    Changes the readers.
    """
    if not _is_list(run[-1]):
        return True
    made = [item.outputs[0] for item in run]
    whole = [*run[-1].args[0], Ref(made[-1])]
    inside = {id(item) for item in run}
    after = list({id(r): r for value in made for r in readers.get(value, ()) if id(r) not in inside}.values())
    for item in after:
        rest = [arg for arg in item.args if arg != whole]
        if any(value in made for arg in (*rest, *item.kwargs.values()) for value in refs(arg)):
            return False
    if any(value in outputs for value in made):
        return False
    for item in after:
        item.args = tuple(Ref(f"*{made[0]}") if arg == whole else arg for arg in item.args)
    return True
