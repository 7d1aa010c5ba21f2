"""What a value is for, where its reader says so: the query or mask of an attention, an index, a parameter."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import count

from translator.emit.source.align import Line, Template, Value, value_places
from translator.emit.source.names import free, identifier

_ATTENTION = ("query", "key", "value")
_MASK = "attention_mask"
"""Not `mask`, an argument that Keras' layers fill in by themselves."""
INDEX = "index"

Reads = Sequence[Sequence[Sequence[Value | None]]]


def roles_of(template: Template, reads: Reads) -> dict[Value, str]:
    """The values that are better named by what they are for, with their names."""
    readers: dict[Value, int] = {}
    for leaves in reads:
        for value in {v for leaf in leaves for v in leaf if v is not None}:
            readers[value] = readers.get(value, 0) + 1
    found: dict[Value, str] = {}
    for at in range(len(reads) - 1, -1, -1):
        line = template.lines[at]
        if _is_parameter(line):
            found["line", at, 0] = identifier(line.some.rel)
        for place, leaf in zip(value_places(line.some), reads[at], strict=True):
            name = _asked(line, place) or _made(line, at, len(reads[at]), found)
            found.update({v: name for v in leaf if name and v is not None and (readers[v] == 1 or name == INDEX)})
    for at, leaves in enumerate(reads):
        if len(leaves) == 1 and template.lines[at].some.kind == "op":
            source = leaves[0][0]
            if source in found and readers[source] == 1 and found[source] not in (*_ATTENTION, _MASK, INDEX):
                found.setdefault(("line", at, 0), found[source])
    return found


def input_names(template: Template, taken: Collection[str]) -> list[str]:
    """The names of a function's inputs: by their roles, and `x`, `x1` … for the others."""
    roles = roles_of(template, template.reads)
    found: list[str] = []
    others = (free(f"x{k or ''}", taken) for k in count())
    for k in range(len(template.bodies[0].inputs)):
        role = roles.get(("in", k, 0), "")
        found.append(role if role and role not in found and role not in taken else next(others))
    return found


def _asked(line: Line, place: int | str) -> str:
    """What the line calls this argument."""
    item = line.some
    if item.kind == "op" and item.head == "dot_product_attention":
        name = place if isinstance(place, str) else _ATTENTION[place] if place < len(_ATTENTION) else ""
        return _MASK if name == "mask" else name if name in _ATTENTION else ""
    if item.function is not None and isinstance(place, int) and not item.function.gathered:
        name = item.function.inputs[place]
        return name if name in (*_ATTENTION, _MASK, INDEX) else ""
    return INDEX if item.kind == "layer" and item.head == "Embedding" else ""


def _made(line: Line, at: int, leaves: int, found: dict[Value, str]) -> str:
    """What is made of the argument, if of it alone."""
    alone = leaves == 1 and len(line.some.outputs) == 1 and not _is_parameter(line)
    return found.get(("line", at, 0), "") if alone else ""


def _is_parameter(line: Line) -> bool:
    """Whether it looks up a free parameter, the one row of an embedding."""
    item = line.some
    return item.kind == "layer" and item.head == "Embedding" and item.settings.get("input_dim") == 1
