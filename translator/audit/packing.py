"""Query, key and value in one matrix on one side and in three on the other: PyTorch's is split, or its three joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from translator.audit.attention import cut
from translator.audit.moves import Move, moved
from translator.audit.network import Network, Unit, Weight
from translator.audit.normalise import rebuilt
from translator.types import Shape
from translator.verify.facts import Dense


def same_packing(left: Network, right: Network, moves: Mapping[int, Move]) -> Network:
    """PyTorch's network (left) with its projections packed as Keras' are. moves: how its values were moved."""
    ours, theirs = _packed(left), _packed(right)
    if ours and not theirs:
        return _split(left, ours, moves)
    if theirs and not ours:
        return _joined(left)
    return left


def _packed(network: Network) -> dict[int, int]:
    """Linear units that make query, key and value at once, and the unit that attends to them."""
    found = {}
    for unit, row in zip(network.units, network.wiring(), strict=True):
        if unit.kind != "attend" or len(row) < 3 or len(set(row[:3])) != 1 or row[0] < 0:
            continue
        projection = network.units[row[0]]
        if projection.kind == "linear" and isinstance(projection.facts, Dense) and projection.facts.units % 3 == 0:
            found[projection.index] = unit.index
    return found


def _split(network: Network, packed: Mapping[int, int], moves: Mapping[int, Move]) -> Network:
    shapes: list[Shape] = list(network.shapes)
    units: list[Unit] = []
    attend = {a: p for p, a in packed.items()}
    cuts: dict[int, list[Unit]] = {}
    for unit in network.units:
        thirds = _thirds(network, unit, network.units[packed[unit.index]], moves) if unit.index in packed else None
        if thirds is not None:
            cuts[unit.index] = _cut_units(unit, thirds, shapes)
            units.extend(cuts[unit.index])
        elif parts := cuts.get(attend.get(unit.index, -1)):
            units.append(replace(unit, inputs=(*(part.outputs[0] for part in parts), *unit.inputs[3:])))
        else:
            units.append(unit)
    return replace(rebuilt(network, units, network.past), shapes=tuple(shapes))


def _thirds(network: Network, unit: Unit, attend: Unit, moves: Mapping[int, Move]) -> list[tuple[int, int]] | None:
    """The rows of query, key and value, found by following numbered columns; None where they are no thirds."""
    if not isinstance(unit.facts, Dense):
        return None
    width = unit.facts.units
    if len(set(attend.inputs[:3])) == 1:  # a packed module: its order is known
        return [(n * width // 3, (n + 1) * width // 3) for n in range(3)]
    shape = tuple(n or 1 for n in network.shapes[unit.outputs[0]])
    columns = np.broadcast_to(np.arange(width, dtype=np.int32), shape).copy()
    found = []
    for value in attend.inputs[:3]:
        there = _followed(network, value, unit.outputs[0], columns, moves)
        seen = np.unique(there) if there is not None else np.array([])
        if len(seen) != width // 3 or seen[-1] - seen[0] + 1 != len(seen):
            return None
        found.append((int(seen[0]), int(seen[-1]) + 1))
    return found


def _followed(
    network: Network, value: int, source: int, numbers: np.ndarray, moves: Mapping[int, Move]
) -> np.ndarray | None:
    chain = []
    while value != source:
        step, before = moves.get(value), network.past.get(value, ())
        if step is None or len(before) != 1:
            return None
        if network.scalars.get(value) is None:
            chain.append(step)
        value = before[0]
    return moved(numbers, reversed(chain))


def _cut_units(unit: Unit, thirds: Sequence[tuple[int, int]], shapes: list[Shape]) -> list[Unit]:
    """Three units in place of one."""
    parts = []
    for name, rows in zip(("query", "key", "value"), thirds, strict=True):
        shapes.append((*shapes[unit.outputs[0]][:-1], rows[1] - rows[0]))
        weights = tuple(cut(w, rows) for w in unit.weights)
        facts = replace(unit.facts, units=rows[1] - rows[0]) if isinstance(unit.facts, Dense) else unit.facts
        channels = facts.channels if isinstance(facts, Dense) else 0
        parts.append(
            replace(
                unit, outputs=(len(shapes) - 1,), weights=weights, facts=facts, text=f"{name} of {unit.text}",
                signature=(rows[1] - rows[0], channels, ()),
            )
        )  # fmt: skip
    return parts


def _joined(network: Network) -> Network:
    """Three projections of one value, read by one unit that attends, as one."""
    units, gone = list(network.units), set()
    shapes = list(network.shapes)
    wiring = network.wiring()
    for unit, row in zip(network.units, wiring, strict=True):
        if unit.kind != "attend" or len(row) < 3 or len(set(row[:3])) != 3 or min(row[:3]) < 0:
            continue
        three = [network.units[i] for i in row[:3]]
        if len({(p.kind, p.inputs, len(p.weights)) for p in three}) != 1 or three[0].kind != "linear":
            continue
        total = sum(p.facts.units for p in three if isinstance(p.facts, Dense))
        shapes.append((*shapes[three[0].outputs[0]][:-1], total))
        weights = tuple(_stacked([p.weights[i] for p in three]) for i in range(len(three[0].weights)))
        facts = replace(three[0].facts, units=total) if isinstance(three[0].facts, Dense) else three[0].facts
        channels = facts.channels if isinstance(facts, Dense) else 0
        first = min(row[:3])
        gone.update(set(row[:3]) - {first})
        units[first] = replace(
            three[0], outputs=(len(shapes) - 1,), weights=weights, facts=facts, signature=(total, channels, ()),
            text="query, key and value", module=None, absorbed=tuple(three),
        )  # fmt: skip
        units[unit.index] = replace(units[unit.index], inputs=(len(shapes) - 1,) * 3 + unit.inputs[3:])
    kept = [u for u in units if u.index not in gone]
    return replace(rebuilt(network, kept, network.past), shapes=tuple(shapes))


def _stacked(weights: Sequence[Weight]) -> Weight:
    rows = sum(w.shape[0] for w in weights)
    pieces = tuple(p for w in weights for p in w.parts)
    return replace(weights[0], shape=(rows, *weights[0].shape[1:]), pieces=pieces)
