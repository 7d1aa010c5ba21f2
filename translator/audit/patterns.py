"""Activations that were written out: `relu6(x + 3) / 6` is a hard sigmoid, `x * sigmoid(x)` a SiLU, on either side."""

from __future__ import annotations

import math
from dataclasses import replace

from translator.audit.network import Network, Unit
from translator.verify.facts import Activation

_GATES = {"sigmoid": "silu", "hard_sigmoid": "hard_silu"}


def recognised(network: Network) -> Network:
    """Given: units and numbers that together are one activation. Result: one unit for it, the parts absorbed."""
    return _gated(_hard_sigmoids(network))


def _hard_sigmoids(network: Network) -> Network:
    """clip(x + 3, 0, 6) / 6."""
    moved = _moved_from(network)
    read = {value for unit in network.units for value in unit.inputs} | set(network.outputs)
    past, units = dict(network.past), list(network.units)
    for unit in network.units:
        if not _is_clip(unit):
            continue
        given, made = unit.inputs[0], unit.outputs[0]
        behind = moved.get(made, [])
        if len(behind) != 1 or made in read or given not in past:
            continue
        before, after = network.scalars.get(given), network.scalars.get(behind[0])
        if before != ("add", 3.0) or not _is_sixth(after):
            continue
        past.pop(behind[0])
        units[unit.index] = replace(
            unit, signature=("hard_sigmoid",), facts=Activation(name="hard_sigmoid"), inputs=network.past[given],
            outputs=(behind[0],), module=None, absorbed=(*unit.absorbed, unit),
        )  # fmt: skip
    return replace(network, units=tuple(units), past=past)


def _is_clip(unit: Unit) -> bool:
    facts = unit.facts
    return isinstance(facts, Activation) and facts.name == "clip" and dict(facts.settings) == {"min": 0.0, "max": 6.0}


def _is_sixth(scalar: tuple[str, float] | None) -> bool:
    if scalar is None:
        return False
    return scalar == ("div", 6.0) or (scalar[0] == "mul" and math.isclose(scalar[1], 1 / 6, rel_tol=1e-6))


def _moved_from(network: Network) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for value, sources in network.past.items():
        for source in sources:
            found.setdefault(source, []).append(value)
    return found


def _gated(network: Network) -> Network:
    """x * sigmoid(x)."""
    made = network.producers()
    times_read: dict[int, int] = {}
    for unit in network.units:
        for value in unit.inputs:
            for source in network.sources(value):
                times_read[source] = times_read.get(source, 0) + 1
    gone: set[int] = set()
    units = list(network.units)
    for unit in network.units:
        if unit.kind != "mul" or len(unit.inputs) != 2 or unit.weights:
            continue
        for x, gate in (unit.inputs, unit.inputs[::-1]):
            inner = network.units[made[gate]] if gate in made else None
            name = _GATES.get(inner.facts.name) if inner is not None and isinstance(inner.facts, Activation) else None
            if inner is None or name is None or inner.inputs != (x,) or times_read.get(gate) != 1:
                continue
            gone.add(inner.index)
            units[unit.index] = replace(
                unit, kind="act", signature=(name,), facts=Activation(name=name), inputs=(x,),
                absorbed=(*unit.absorbed, *inner.absorbed, inner),
            )  # fmt: skip
            break
    kept = [u for u in units if u.index not in gone]
    return replace(network, units=tuple(replace(u, index=i) for i, u in enumerate(kept)))
