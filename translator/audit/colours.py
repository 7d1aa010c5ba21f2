"""Colours: numbers that are equal exactly where two units, of one network or of two, have the same surroundings.

Weisfeiler and Lehman's refinement on the wiring, upward and downward apart. A fault changes the colours on one side of
it only, so nearly every unit keeps a colour by which its twin is found. Numbers are given out in order of appearance,
so that the same two networks always give the same colours.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from translator.audit.kinds import ORDERED
from translator.audit.network import Network

PASSED = frozenset({"act", "dropout", "pad", "affine"})
"""Kinds that are often somewhere else on the other side: surroundings are seen through them."""

ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Coloured:
    """A network's wiring without what is passed, and its colours.

    above, below: for each unit its neighbours that are not passed; -1 - n stands for input n of the model. label: kind
    and signature. near: colours of 1, 2 … ROUNDS rounds, above then below; (2 * ROUNDS, units). all_above, all_below:
    everything a unit depends on, everything that depends on it. depth: weighted units on the longest way from an input.
    """

    above: tuple[tuple[int, ...], ...]
    below: tuple[tuple[tuple[int, int], ...], ...]
    label: np.ndarray
    near: np.ndarray
    all_above: np.ndarray
    all_below: np.ndarray
    depth: np.ndarray


class Palette:
    """Gives out a number for each thing, the same number for the same thing."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def number(self, thing: Hashable) -> int:
        """The thing's number."""
        return self._numbers.setdefault(thing, len(self._numbers))


def coloured(network: Network, palette: Palette) -> Coloured:
    """Colour a network. Networks that are to be compared share a palette."""
    above = see_through(network, network.wiring())
    below = _turned(network, above)
    labels = [palette.number(("unit", u.kind, u.signature)) for u in network.units]
    ordered = [u.kind in ORDERED for u in network.units]
    near = _near(above, below, labels, ordered, palette)
    all_above = _all_above(above, labels, ordered, palette)
    all_below = _all_below(network, below, labels, ordered, palette)
    depth = _depth(network, above)
    return Coloured(
        above=above,
        below=below,
        label=np.array(labels, dtype=np.int64),
        near=np.array(near, dtype=np.int64).reshape(2 * ROUNDS, len(labels)),
        all_above=np.array(all_above, dtype=np.int64),
        all_below=np.array(all_below, dtype=np.int64),
        depth=np.array(depth, dtype=np.int64),
    )


def see_through(network: Network, wiring: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """For each unit the nearest units above it that are not passed, in the order of its arguments."""
    through: list[tuple[int, ...]] = []
    rows: list[tuple[int, ...]] = []
    for unit, row in zip(network.units, wiring, strict=True):
        seen = tuple(source for w in row for source in ((w,) if w < 0 else through[w]))
        rows.append(seen)
        through.append(seen if unit.kind in PASSED else (unit.index,))
    return tuple(rows)


def _turned(network: Network, above: Sequence[tuple[int, ...]]) -> tuple[tuple[tuple[int, int], ...], ...]:
    """For each unit the units that read it, with the place of the argument; those that are passed left out."""
    below: list[list[tuple[int, int]]] = [[] for _ in above]
    for unit, row in zip(network.units, above, strict=True):
        if unit.kind in PASSED:
            continue
        for place, source in enumerate(row):
            if source >= 0:
                below[source].append((unit.index, place))
    return tuple(tuple(row) for row in below)


def _near(
    above: Sequence[tuple[int, ...]],
    below: Sequence[tuple[tuple[int, int], ...]],
    labels: Sequence[int],
    ordered: Sequence[bool],
    palette: Palette,
) -> list[list[int]]:
    rows: list[list[int]] = []
    up, down = list(labels), list(labels)
    ups, downs = [], []
    for _ in range(ROUNDS):
        up = [
            palette.number(("up", labels[i], _group([_of(up, s) for s in above[i]], ordered=ordered[i])))
            for i in range(len(labels))
        ]
        down = [
            palette.number(("down", labels[i], tuple(sorted((down[r], p if ordered[r] else 0) for r, p in below[i]))))
            for i in range(len(labels))
        ]
        ups.append(up)
        downs.append(down)
    rows.extend(ups)
    rows.extend(downs)
    return rows


def _all_above(
    above: Sequence[tuple[int, ...]], labels: Sequence[int], ordered: Sequence[bool], palette: Palette
) -> list[int]:
    colours: list[int] = []
    for i, row in enumerate(above):
        group = _group([_of(colours, s) for s in row], ordered=ordered[i])
        colours.append(palette.number(("above", labels[i], group)))
    return colours


def _all_below(
    network: Network,
    below: Sequence[tuple[tuple[int, int], ...]],
    labels: Sequence[int],
    ordered: Sequence[bool],
    palette: Palette,
) -> list[int]:
    colours = [0] * len(labels)
    made = network.producers()
    results: dict[int, list[int]] = {}
    for place, value in enumerate(network.outputs):
        for source in network.sources(value):
            if source in made:
                results.setdefault(made[source], []).append(place)
    for i in range(len(labels) - 1, -1, -1):
        readers = tuple(sorted((colours[r], place if ordered[r] else 0) for r, place in below[i]))
        colours[i] = palette.number(("below", labels[i], readers, tuple(results.get(i, ()))))
    return colours


def _of(colours: Sequence[int], source: int) -> int:
    return colours[source] if source >= 0 else source


def _group(colours: list[int], *, ordered: bool) -> tuple[int, ...]:
    return tuple(colours) if ordered else tuple(sorted(colours))


def _depth(network: Network, above: Sequence[tuple[int, ...]]) -> list[int]:
    depth: list[int] = []
    for unit, row in zip(network.units, above, strict=True):
        depth.append(max((depth[s] for s in row if s >= 0), default=0) + (1 if unit.weights else 0))
    return depth


def reading_order(network: Network, colours: Coloured) -> list[int]:
    """The units branch by branch: before a join its longest branch, whole, then the next. Both networks alike.

    A branch stays together, so a layer more or less in it moves nothing but what stands behind it.
    """
    wiring = network.wiring()
    made = network.producers()
    order: list[int] = []
    state = [False] * len(network.units)
    roots = [made[s] for value in network.outputs for s in network.sources(value) if s in made]
    for root in [*roots, *range(len(network.units) - 1, -1, -1)]:
        stack = [root]
        while stack:
            unit = stack[-1]
            if state[unit]:
                stack.pop()
                continue
            waiting = [s for s in dict.fromkeys(wiring[unit]) if s >= 0 and not state[s]]
            if waiting:
                waiting.sort(key=lambda s: (-colours.depth[s], colours.all_above[s], s))
                stack.append(waiting[0])
                continue
            state[unit] = True
            order.append(stack.pop())
    return order
