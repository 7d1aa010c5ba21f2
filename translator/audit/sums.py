"""Sums of sums as one: `(a + b) + c`, `a + (b + c)` and `b + c + a` are the same sum, whoever wrote which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from translator.audit.biases import is_bias
from translator.audit.network import Network, Unit
from translator.audit.normalise import rebuilt


def sums_joined(network: Network) -> Network:
    """Given: sums of two, some with a weight of the model's own (a table of positions). Result: a sum whose only
    reader is another sum has become part of that one; values that were only in between are gone."""
    wiring = network.wiring()
    readers: dict[int, list[int]] = {}
    for unit, row in zip(network.units, wiring, strict=True):
        for source in row:
            readers.setdefault(source, []).append(unit.index)
    results = {s for value in network.outputs for s in network.sources(value)}
    units, gone = list(network.units), set[int]()
    for unit in network.units:
        below = readers.get(unit.index, [])
        if not _is_sum(unit) or len(below) != 1 or results.intersection(unit.outputs):
            continue
        last = units[below[0]]
        direct = unit.outputs[0] in last.inputs and network.shapes[unit.outputs[0]] == network.shapes[last.outputs[0]]
        bias = any(is_bias(network, w, wiring) for w in (unit, last))
        if _is_sum(last) and direct and (unit.weights or last.weights) and not bias:
            units[last.index] = _together(units[unit.index], last)
            gone.add(unit.index)
    return rebuilt(network, (u for u in units if u.index not in gone), network.past) if gone else network


def _is_sum(unit: Unit) -> bool:
    plain = unit.kind == "add" and len(unit.outputs) == 1
    return plain or (unit.kind == "constant" and unit.function == "add" and len(unit.inputs) == 1)


def _together(first: Unit, last: Unit) -> Unit:
    place = last.inputs.index(first.outputs[0])
    inputs: Sequence[int] = (*last.inputs[:place], *first.inputs, *last.inputs[place + 1 :])
    weights = (*first.weights, *last.weights)
    kind = "add" if len(inputs) > 1 else "constant"
    sizes = tuple(sorted(w.size for w in weights))
    return replace(
        last, kind=kind, signature=sizes, inputs=tuple(inputs), weights=weights,
        absorbed=(*last.absorbed, *first.absorbed, first),
    )  # fmt: skip
