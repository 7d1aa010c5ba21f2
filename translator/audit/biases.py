"""A bias that one side adds in a layer of its own, and the other inside the convolution or dense layer before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from translator.audit.network import Network, Unit
from translator.verify.facts import Conv, Dense, Presence


def same_biases(left: Network, right: Network, pairs: Sequence[tuple[int, int]]) -> tuple[Network, Network]:
    """Given: a sum with one vector, without a partner, behind a layer without a bias whose partner has one.
    Result: the layer makes what the sum made, with the vector as its bias, and has it absorbed."""
    there, back = dict(pairs), {k: t for t, k in pairs}
    return _joined(left, right, there), _joined(right, left, back)


def _joined(network: Network, other: Network, partner: Mapping[int, int]) -> Network:
    units, wiring = list(network.units), network.wiring()
    for unit in network.units:
        if unit.index in partner or not is_bias(network, unit, wiring):
            continue
        layer = units[wiring[unit.index][0]]
        twin = other.units[partner[layer.index]] if layer.index in partner else None
        if twin is None or _lacks(twin) or not isinstance(twin.facts, Conv | Dense):
            continue
        if [i for i, row in enumerate(wiring) if layer.index in row] == [unit.index]:
            units[layer.index] = _with_bias(layer, unit)
    return replace(network, units=tuple(units))


def is_bias(network: Network, unit: Unit, wiring: Sequence[Sequence[int]]) -> bool:
    """Whether a unit adds what may be the bias of the layer before it."""
    row = wiring[unit.index]
    if not _adds_a_vector(unit) or len(row) != 1 or row[0] < 0:
        return False
    layer = network.units[row[0]]
    return _lacks(layer) and unit.elements == _width(layer)


def _adds_a_vector(unit: Unit) -> bool:
    return unit.kind == "constant" and unit.function == "add" and len(unit.weights) == 1 and len(unit.inputs) == 1


def _lacks(unit: Unit) -> bool:
    return isinstance(unit.facts, Conv | Dense) and unit.facts.bias is Presence.NONE


def _width(unit: Unit) -> int:
    facts = unit.facts
    return facts.filters if isinstance(facts, Conv) else facts.units if isinstance(facts, Dense) else 0


def _with_bias(layer: Unit, bias: Unit) -> Unit:
    if not isinstance(layer.facts, Conv | Dense):
        return layer
    weight = replace(bias.weights[0], role="bias")
    return replace(
        layer, outputs=bias.outputs, weights=(*layer.weights, weight), absorbed=(*layer.absorbed, bias),
        facts=replace(layer.facts, bias=Presence.IN_USE),
    )  # fmt: skip
