"""Both networks in one form: paddings become part of the windows behind them, activations that do nothing go."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from translator.audit.network import Network, Unit
from translator.audit.patterns import recognised
from translator.verify.facts import Activation, Conv, Padding, Pool, Recurrent, padded


def normalised(network: Network) -> Network:
    """Given: a network as its author wrote it. Result: the same function, without paddings and empty activations of
    their own wherever they can be part of something else."""
    return _without_padding(_paddings_joined(recognised(_without_empty(network))))


def rebuilt(network: Network, units: Iterable[Unit], past: Mapping[int, tuple[int, ...]]) -> Network:
    """The network with other units (numbered anew, in order) and other edges past them."""
    numbered = tuple(replace(unit, index=index) for index, unit in enumerate(units))
    return replace(network, units=numbered, past=dict(past))


def _without_empty(network: Network) -> Network:
    made = network.producers()
    gone = [u.index for u in network.units if _is_empty(network, u) or _joins_parts(network, u, made)]
    return seen_through(network, gone)


def seen_through(network: Network, units: Iterable[int]) -> Network:
    """The network without these units: edges run past them."""
    gone = set(units)
    past = dict(network.past)
    for unit in network.units:
        if unit.index in gone:
            past.update(dict.fromkeys(unit.outputs, unit.inputs))
    return rebuilt(network, (u for u in network.units if u.index not in gone), past)


def _is_empty(network: Network, unit: Unit) -> bool:
    """An identity: no activation, or a pooling of every element by itself (AdaptiveAvgPool2d(7) of a 7x7 image)."""
    if isinstance(unit.facts, Activation):
        return unit.facts.name == "linear"
    same = len(unit.inputs) == 1 and network.shapes[unit.inputs[0]] == network.shapes[unit.outputs[0]]
    return isinstance(unit.facts, Pool) and unit.facts.windows is None and same


def _joins_parts(network: Network, unit: Unit, made: Mapping[int, int]) -> bool:
    """A value's own parts put together again, in whatever order (shuffled channels), or the last states of both
    directions, as a recurrent layer that gives its last step has them: numbers are moved, none is computed."""
    sources = {s for value in unit.inputs for s in network.sources(value)}
    if unit.kind != "concat" or len(sources) != 1:
        return False
    source = sources.pop()
    if _elements(network, source) == _elements(network, unit.outputs[0]):
        return True
    layer = network.units[made[source]] if source in made else None
    facts = layer.facts if layer is not None else None
    return isinstance(facts, Recurrent) and facts.bidirectional and layer is not None and source in layer.outputs[1:]


def _elements(network: Network, value: int) -> int:
    return math.prod(n for n in network.shapes[value] if n is not None)


def _paddings_joined(network: Network) -> Network:
    """A padding and a cropping behind it, as one: with negative numbers where more is cropped than padded."""
    readers, made = _readers(network), network.producers()
    units = list(network.units)
    gone: set[int] = set()
    for unit in network.units:
        above = made.get(next(network.sources(unit.inputs[0]))) if isinstance(unit.facts, Padding) else None
        first = units[above] if above is not None else None
        if first is None or not isinstance(first.facts, Padding) or not isinstance(unit.facts, Padding):
            continue
        if readers.get(first.index) != [unit.index] or len(first.facts.pads) != len(unit.facts.pads):
            continue
        if unit.facts.fill != first.facts.fill and any(n > 0 for pair in unit.facts.pads for n in pair):
            continue
        pairs = zip(first.facts.pads, unit.facts.pads, strict=True)
        pads = tuple((a + c, b + d) for (a, b), (c, d) in pairs)
        gone.add(first.index)
        units[unit.index] = replace(
            unit, facts=replace(first.facts, pads=pads), inputs=first.inputs, absorbed=(*first.absorbed, first),
            operations=(*first.operations, *unit.operations),
        )  # fmt: skip
    return rebuilt(network, (u for u in units if u.index not in gone), network.past)


def _without_padding(network: Network) -> Network:
    readers = _readers(network)
    past = dict(network.past)
    gone: set[int] = set()
    joined: dict[int, Unit] = {}
    for unit in network.units:
        pad = unit.facts
        if not isinstance(pad, Padding) or any(n < 0 for pair in pad.pads for n in pair):
            continue
        behind = [joined.get(i, network.units[i]) for i in readers.get(unit.index, ())]
        if not behind or not all(_takes(b, pad) for b in behind):
            continue
        gone.add(unit.index)
        past.update(dict.fromkeys(unit.outputs, unit.inputs))
        for window in behind:
            joined[window.index] = _joined(network, unit, window, pad)
    kept = [joined.get(u.index, u) for u in network.units if u.index not in gone]
    return rebuilt(network, kept, past)


def _readers(network: Network) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    results = {s for value in network.outputs for s in network.sources(value)}
    for unit, row in zip(network.units, network.wiring(), strict=True):
        for source in row:
            if source >= 0:
                found.setdefault(source, []).append(unit.index)
    # What is put out is read by whoever called the model, and no window can take it in.
    return {i: readers for i, readers in found.items() if not results.intersection(network.units[i].outputs)}


def _takes(unit: Unit, pad: Padding) -> bool:
    facts = unit.facts
    if isinstance(facts, Conv) and facts.transposed:
        return False
    windows = facts.windows if isinstance(facts, Conv | Pool) else None
    return windows is not None and windows.padding is not None and len(windows.kernel) == len(pad.pads)


def _joined(network: Network, pad_unit: Unit, window: Unit, pad: Padding) -> Unit:
    facts = window.facts
    if not isinstance(facts, Conv | Pool) or facts.windows is None:
        return window
    sizes = facts.windows.sizes
    if sizes is not None:
        sizes = tuple(n - sum(pair) for n, pair in zip(sizes, pad.pads, strict=True))
    return replace(
        window,
        inputs=pad_unit.inputs,
        facts=padded(facts, [pad], sizes),
        absorbed=(pad_unit, *window.absorbed),
        operations=(*pad_unit.operations, *window.operations),
    )


def units_named(units: Sequence[Unit]) -> str:
    """For messages: `layer1.0.relu (ReLU)`, a function by the module it stands in."""
    return ", ".join(f"{u.path or '(model)'} ({u.text})" for u in units)
