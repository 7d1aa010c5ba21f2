"""How layouts pass through ops that move, join, drop or add axes. Pure functions, no graph."""

from __future__ import annotations

from collections.abc import Sequence

import sympy

from translator.graph.dims import SymDim, SymShape, ratio
from translator.types import Layout


def transposed(layout: Layout, perm: Sequence[int]) -> Layout:
    """Layout of `y = x.permute(perm)` where y lies in memory exactly as x does: a transpose that costs nothing."""
    return Layout(axes=tuple(list(perm).index(a) for a in layout.axes))


def in_place(before: Sequence[int], after: Sequence[int], shape: Sequence[int | None]) -> bool:
    """Whether axes in another order lie in memory as they did, so that a reshape moves them: those of size 1 aside,
    both orders are one. shape: sizes by axis, None for a dynamic one."""
    kept = [[axis for axis in order if shape[axis] != 1] for order in (before, after)]
    return kept[0] == kept[1]


def inner(axes: Sequence[int], rank: int) -> bool:
    """Whether sorted axes stand side by side, but not last: Keras' torch backend normalises the last ones instead."""
    return axes[-1] < rank - 1 and axes[-1] - axes[0] == len(axes) - 1


def dropped(layout: Layout, axes: Sequence[int]) -> Layout:
    """Layout after the PyTorch axes `axes` were removed (squeeze, reduce, select)."""
    gone = {a % len(layout.axes) for a in axes}
    kept = [a for a in layout.axes if a not in gone]
    order = sorted(kept)
    return Layout(axes=tuple(order.index(a) for a in kept))


def inserted(layout: Layout, axes: Sequence[int]) -> Layout:
    """Layout after new axes of size 1 came at PyTorch positions `axes` (of the result).

    A new axis stands in memory just before the axis that follows it in PyTorch's order, so identity stays identity.
    """
    rank = len(layout.axes) + len(axes)
    new = sorted(a % rank for a in axes)
    old = [a for a in range(rank) if a not in new]
    memory = [old[a] for a in layout.axes]
    for axis in reversed(new):
        place = memory.index(axis + 1) if axis + 1 in memory else len(memory)
        memory.insert(place, axis)
    return Layout(axes=tuple(memory))


def reshaped(layout: Layout, before: SymShape, after: SymShape) -> Layout | None:
    """Layout of a reshape's result that needs no data moved, or None where there is none."""
    groups = _groups(before, after)
    if groups is None:
        return Layout.identity(len(after)) if layout.is_identity else None
    position = {axis: place for place, axis in enumerate(layout.axes)}
    blocks: list[tuple[int, list[int]]] = []
    ones = [axis for axis, d in enumerate(after) if isinstance(d, int) and d == 1]
    for source, target in groups:
        real = [a for a in source if before[a] != 1]
        places = [position[a] for a in real]
        wide = [a for a in target if after[a] != 1]
        if len(real) > 1 and not _adjacent(places, layout, before):
            return None
        if wide:
            blocks.append((min(places), wide))
    memory = [axis for _, wide in sorted(blocks) for axis in wide]
    return Layout(axes=tuple(_place_ones(memory, ones, len(after))))


def _adjacent(places: list[int], layout: Layout, before: SymShape) -> bool:
    """Whether these memory places follow each other in order, axes of size 1 between them aside."""
    if places != sorted(places):
        return False
    between = range(places[0], places[-1] + 1)
    return all(place in places or before[layout.axes[place]] == 1 for place in between)


def _place_ones(memory: list[int], ones: list[int], rank: int) -> list[int]:
    """Axes of size 1 can stand anywhere: where that gives identity or channels-last, else before their follower."""
    for candidate in (Layout.identity(rank), Layout.channels_last(rank)):
        if [a for a in candidate.axes if a not in ones] == memory:
            return list(candidate.axes)
    out = list(memory)
    for axis in reversed(ones):
        out.insert(out.index(axis + 1) if axis + 1 in out else len(out), axis)
    return out


def _groups(before: SymShape, after: SymShape) -> list[tuple[list[int], list[int]]] | None:
    """Smallest runs of dimensions with equal products: [(axes before, axes after)]; None where they don't line up."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        source, target = [], []
        left: SymDim = 1
        right: SymDim = 1
        if i < len(before):
            left, source, i = before[i], [i], i + 1
        if j < len(after):
            right, target, j = after[j], [j], j + 1
        while left != right:
            smaller = _take_left(left, right)
            if smaller is None:
                return None
            if smaller:
                if i >= len(before):
                    return None
                left, i = left * before[i], i + 1
                source.append(i - 1)
            else:
                if j >= len(after):
                    return None
                right, j = right * after[j], j + 1
                target.append(j - 1)
        groups.append((source, target))
    return groups


def _take_left(left: SymDim, right: SymDim) -> bool | None:
    """Whether the left product is the smaller one; None where that can't be told."""
    if isinstance(left, int) and isinstance(right, int):
        return left < right
    if ratio(right, left) is not None:
        return True
    if ratio(left, right) is not None:
        return False
    difference = sympy.sympify(right - left)
    if difference.is_positive or difference.is_negative:
        return bool(difference.is_positive)
    return None
