"""Lay the bodies of one class side by side: which items are the same statement, and which of them some bodies lack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from translator.emit.source.items import ALL, FIRST, Body, Item, Key, argument_leaves
from translator.plan.calls import Ref

ALIKE = 0.6
"""Share of the shorter body's items that two bodies need in common to be written as one function."""

_ACTIVATIONS = ("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax")

Value = tuple[str, int, int]
"""A value of a template: ("in", number, 0), ("line", index of the line, number of the output), ("copy", line, 0), or
("first", 0, 0): the first of the tensors in the list that is its only input."""


@dataclass(slots=True, kw_only=True, eq=False)
class Line:
    """One statement of a template: the item of each body, None where the body lacks it."""

    items: list[Item | None]

    @property
    def some(self) -> Item:
        """An item of the line."""
        return next(item for item in self.items if item is not None)

    @property
    def present(self) -> tuple[bool, ...]:
        """Which bodies have it."""
        return tuple(item is not None for item in self.items)


@dataclass(slots=True, kw_only=True, eq=False)
class Template:
    """Bodies side by side. reads: for each line, for each leaf that is a value, the value by body (None: no such line).

    returns: the same for the values that the bodies give back.
    """

    bodies: list[Body]
    lines: list[Line]
    reads: list[list[list[Value | None]]]
    returns: list[list[Value | None]]


def groups_of(bodies: Sequence[Body]) -> list[list[Body]]:
    """Bodies that are alike enough to be one function together; the largest groups first, in order of first use."""
    by_signature: dict[tuple[Key, ...], list[Body]] = {}
    for body in bodies:
        by_signature.setdefault((*_face(body), *body.signature), []).append(body)
    found: list[tuple[list[Key], list[Body]]] = []
    for alike in sorted(by_signature.values(), key=len, reverse=True):
        found.append((list(alike[0].signature), list(alike)))
    joined = True
    while joined:
        joined = False
        for i, (keys, members) in enumerate(found):
            for other in found[i + 1 :]:
                if _face(members[0]) == _face(other[1][0]) and _alike(keys, other[0]):
                    keys[:] = merge(keys, other[0])
                    members += other[1]
                    found.remove(other)
                    joined = True
                    break
    order = {id(body): i for i, body in enumerate(bodies)}
    return [sorted(members, key=lambda b: order[id(b)]) for _, members in found]


def template_of(bodies: list[Body]) -> Template:
    """The template of bodies of one group."""
    keys: list[Key] = []
    for signature in dict.fromkeys(body.signature for body in bodies):
        keys = merge(keys, signature)
    lines = [Line(items=[None] * len(bodies)) for _ in keys]
    for column, body in enumerate(bodies):
        for at, item in zip(_embed(keys, body.signature), body.items, strict=True):
            lines[at].items[column] = item
    lines = [line for line in lines if any(line.present)]  # a key that stands twice may be needed but once
    values = [_values(lines, body, column) for column, body in enumerate(bodies)]
    return Template(
        bodies=bodies,
        lines=lines,
        reads=[_reads(line, values) for line in lines],
        returns=[
            [v[body.outputs[k]] for v, body in zip(values, bodies, strict=True)] for k in range(len(bodies[0].outputs))
        ],
    )


def value_leaves(item: Item) -> list[Ref]:
    """The leaves of an item's arguments that are values, in order."""
    return [leaf for _, leaf in argument_leaves(item) if isinstance(leaf, Ref)]


def value_places(item: Item) -> list[int | str]:
    """The argument that each of them is, or is in: its position or its keyword."""
    return [path[0] for path, leaf in argument_leaves(item) if isinstance(leaf, Ref)]


def constant_leaves(item: Item) -> dict[tuple[Any, ...], Any]:
    """The leaves that are constants, by the way to them; keywords come as their names."""
    return {path: leaf for path, leaf in argument_leaves(item) if not isinstance(leaf, Ref)}


def merge(first: Sequence[Key], second: Sequence[Key]) -> list[Key]:
    """A shortest sequence that holds both, in their orders."""
    if list(first) == list(second) or not second:
        return list(first)
    merged: list[Key] = []
    i = j = 0
    for a, b in _common(first, second):
        merged += [*first[i:a], *second[j:b], first[a]]
        i, j = a + 1, b + 1
    return [*merged, *first[i:], *second[j:]]


def _face(body: Body) -> Key:
    """What callers see: bodies that differ here can't be one function."""
    return (-1 if body.gathered else len(body.inputs), len(body.outputs), bool(body.node.nested))


def _kind(head: str) -> str:
    """What classes of one kind, which may stand in for each other, have in common: both are convolutions …"""
    if head in _ACTIVATIONS:
        return "activation"
    return next((word for word in ("Conv", "Pooling", "Normalization", "Dense", "Dropout") if word in head), head)


def _alike(first: Sequence[Key], second: Sequence[Key]) -> bool:
    """Whether they have enough in common, and no name stands for two things of different kinds.

    Where it does, parts are numbered and one body lacks a part: what stands in one place isn't the same thing.
    """
    blocks, layers = (
        {rel: _kind(head) for kind, head, rel, *_ in first if kind in kinds} for kinds in (("call", "loop"), ("layer",))
    )
    for kind, head, rel, *_ in second:
        known = blocks if kind in ("call", "loop") else layers if kind == "layer" else {}
        if known.get(rel, _kind(head)) != _kind(head):
            return False
    return len(_common(first, second)) >= ALIKE * min(len(first), len(second))


def _common(first: Sequence[Key], second: Sequence[Key]) -> list[tuple[int, int]]:
    """A longest common subsequence, as pairs of positions."""
    n, m = len(first), len(second)
    length = [[0] * (m + 1) for _ in range(n + 1)]
    for i in range(n - 1, -1, -1):
        for j in range(m - 1, -1, -1):
            if first[i] == second[j]:
                length[i][j] = length[i + 1][j + 1] + 1
            else:
                length[i][j] = max(length[i + 1][j], length[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < n and j < m:
        if first[i] == second[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif length[i + 1][j] >= length[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def _embed(keys: Sequence[Key], signature: Sequence[Key]) -> list[int]:
    """Where each key of the signature stands among the keys."""
    if list(keys) == list(signature):
        return list(range(len(keys)))
    return [a for a, _ in _common(keys, signature)]


def _values(lines: Sequence[Line], body: Body, column: int) -> dict[str, Value]:
    found: dict[str, Value] = {value: ("in", i, 0) for i, value in enumerate(body.inputs)}
    if body.gathered:
        found = {ALL: ("in", 0, 0), FIRST: ("first", 0, 0)}
    for at, line in enumerate(lines):
        item = line.items[column]
        if item is not None:
            found.update({value: ("line", at, k) for k, value in enumerate(item.outputs)})
    return found


def _reads(line: Line, values: Sequence[dict[str, Value]]) -> list[list[Value | None]]:
    refs = [None if item is None else value_leaves(item) for item in line.items]
    count = len(value_leaves(line.some))
    return [[None if r is None else v[r[k].value] for r, v in zip(refs, values, strict=True)] for k in range(count)]
