"""Attention in one form, however it was written: projections as linear units, one unit that attends, an output.

A MultiheadAttention module or layer is taken apart; `softmax(q kᵀ) v` written out is put together. Query, key and value
in one matrix are split where the other side has three, and joined where only the other side has one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from translator.audit.network import Network, Unit, Weight
from translator.audit.normalise import rebuilt
from translator.bindings import Piece
from translator.types import Shape
from translator.verify.facts import Activation, Attention, Dense, Dropout, Presence

_PARTS = ("query", "key", "value")


def attention_normalised(network: Network) -> Network:
    """Given: attention as its author wrote it. Result: projections, an `attend` unit, an output projection."""
    return _written_out(_taken_apart(network))


@dataclass(slots=True)
class _Rebuilder:
    """New units and the values between them."""

    shapes: list[Shape]
    units: list[Unit] = field(default_factory=list)

    def value(self, shape: Shape) -> int:
        self.shapes.append(shape)
        return len(self.shapes) - 1


def _taken_apart(network: Network) -> Network:
    work = _Rebuilder(list(network.shapes))
    for unit in network.units:
        parts = _parts_of(unit, work) if unit.kind == "attention" else None
        work.units.extend(parts or [unit])
    return replace(rebuilt(network, work.units, network.past), shapes=tuple(work.shapes))


def _parts_of(unit: Unit, work: _Rebuilder) -> list[Unit] | None:
    facts = unit.facts
    if not isinstance(facts, Attention) or not unit.inputs:
        return None
    given = _query_key_value(unit)
    if unit.module is not None:
        projections = _torch_projections(unit, given, work)
        out = [w for w in unit.weights if w.slot.startswith("out_proj.")]
    else:
        projections = _keras_projections(unit, given, work)
        out = [w for w in unit.weights if w.slot.startswith("attention_output/")]
    if projections is None or not out:
        return None
    read = tuple(p.outputs[0] for p in projections)
    context = work.value(work.shapes[unit.outputs[0]])
    attend = replace(
        unit, kind="attend", signature=(), inputs=read * 3 if len(read) == 1 else read, outputs=(context,), weights=(),
        facts=replace(facts, bias=Presence.NONE), text="attention",
    )  # fmt: skip
    renamed = tuple(replace(w, slot=w.slot.removeprefix("out_proj.")) for w in out)
    output = _linear(unit, (context,), unit.outputs, renamed, "attention_output")
    return [*projections, attend, output]


def _query_key_value(unit: Unit) -> tuple[int, int, int]:
    """Which inputs are query, key and value: PyTorch's order is that; Keras' is query, value, key."""
    first, *rest = unit.inputs
    if unit.module is not None:
        return first, (rest[0] if rest else first), (rest[1] if len(rest) > 1 else rest[0] if rest else first)
    value = rest[0] if rest else first
    return first, (rest[1] if len(rest) > 1 else value), value


def _torch_projections(unit: Unit, given: Sequence[int], work: _Rebuilder) -> list[Unit] | None:
    packed, bias = unit.weight("in_proj_weight"), unit.weight("in_proj_bias")
    width = _width(unit)
    shape = (*work.shapes[given[0]][:-1], width)
    if packed is not None and len(set(given)) == 1:
        weights = [replace(packed, slot="weight"), *([replace(bias, slot="bias")] if bias is not None else [])]
        return [_linear(unit, given[:1], (work.value((*shape[:-1], 3 * width)),), tuple(weights), "in_proj")]
    units = []
    for number, (part, value) in enumerate(zip(_PARTS, given, strict=True)):
        rows = (number * width, (number + 1) * width)
        own = cut(packed, rows) if packed is not None else unit.weight(f"{part[0]}_proj_weight")
        if own is None:
            return None
        weights = [replace(own, slot="weight")]
        if bias is not None:
            weights.append(replace(cut(bias, rows), slot="bias"))
        units.append(_linear(unit, (value,), (work.value(shape),), tuple(weights), part))
    return units


def _keras_projections(unit: Unit, given: Sequence[int], work: _Rebuilder) -> list[Unit] | None:
    units = []
    for part, value in zip(_PARTS, given, strict=True):
        weights = tuple(w for w in unit.weights if w.slot.startswith(f"{part}/"))
        if not weights:
            return None
        shape = (*work.shapes[value][:-1], _width(unit))
        units.append(_linear(unit, (value,), (work.value(shape),), weights, part))
    return units


def _width(unit: Unit) -> int:
    return unit.facts.width if isinstance(unit.facts, Attention) else 0


def _linear(unit: Unit, inputs: Sequence[int], outputs: Sequence[int], weights: tuple[Weight, ...], part: str) -> Unit:
    """One projection of an attention unit."""
    kernel = next(w for w in weights if w.slot.rsplit("/", 1)[-1] in ("weight", "kernel"))
    has_bias = any(w.slot.rsplit("/", 1)[-1] == "bias" for w in weights)
    if unit.module is not None:
        units, channels = kernel.shape
        operations: tuple[Any, ...] = ()
    else:
        layer = getattr(unit.operations[-1], f"_{part}_dense" if part != "attention_output" else "_output_dense")
        operations = (layer,)
        out = part == "attention_output"  # (heads, size, units); the projections before it (channels, heads, size)
        channels = math.prod(kernel.shape[:2] if out else kernel.shape[:1])
        units = kernel.size // channels
    facts = Dense(channels=channels, units=units, bias=Presence.IN_USE if has_bias else Presence.NONE)
    return replace(
        unit, kind="linear", signature=(units, channels, ()), inputs=tuple(inputs), outputs=tuple(outputs), facts=facts,
        weights=weights, operations=operations, text=f"{part} of {unit.text}",
    )  # fmt: skip


def cut(weight: Weight, rows: tuple[int, int]) -> Weight:
    """Some rows of a PyTorch tensor."""
    rest = tuple((0, n) for n in weight.shape[1:])
    shape = (rows[1] - rows[0], *weight.shape[1:])
    region = (*rest, rows) if weight.turned else (rows, *rest)
    return replace(weight, shape=shape, pieces=(Piece(tensor=weight.name, region=region),))


def _written_out(network: Network) -> Network:
    """matmul, softmax, matmul as one unit that attends."""
    made, units = network.producers(), list(network.units)
    gone: set[int] = set()
    for unit in network.units:
        if unit.kind != "matmul" or len(unit.inputs) != 2:
            continue
        through, softmax = _above(network, made, unit.inputs[0], ("dropout",))
        if softmax is None or not isinstance(softmax.facts, Activation) or softmax.facts.name != "softmax":
            continue
        masks, scores = _above(network, made, softmax.inputs[0], ("constant",))
        if scores is None or scores.kind != "matmul" or len(scores.inputs) != 2:
            continue
        absorbed = (scores, *masks, softmax, *through)
        gone.update(u.index for u in absorbed)
        rates = [u.facts.rate for u in through if isinstance(u.facts, Dropout)]
        facts = _heads(network.shapes[scores.inputs[0]], max(rates, default=0.0))
        units[unit.index] = replace(
            unit, kind="attend", signature=(), inputs=(*_query_and_key(scores), unit.inputs[1]), text="attention",
            facts=facts,
            absorbed=(*unit.absorbed, *absorbed), weights=tuple(w for u in masks for w in u.weights),
        )  # fmt: skip
    return rebuilt(network, (u for u in units if u.index not in gone), network.past)


def _query_and_key(scores: Unit) -> tuple[int, ...]:
    """What the scores are made of, the query first: in an einsum, the operand whose own letter is not the last one."""
    left, _, made = scores.equation.replace(" ", "").partition("->")
    first, _, second = left.partition(",")
    key_first = bool(made) and made[-1] in first and made[-1] not in second
    return scores.inputs[::-1] if key_first else scores.inputs


def _heads(shape: Shape, dropout: float) -> Attention | None:
    """What is known of attention on queries of the shape (N, heads, tokens, size)."""
    heads, size = (shape[1], shape[3]) if len(shape) == 4 else (None, None)
    if heads is None or size is None:
        return None
    return Attention(heads=heads, width=heads * size, bias=Presence.NONE, dropout=dropout, packed=None)


def _above(
    network: Network, made: dict[int, int], value: int, through: tuple[str, ...]
) -> tuple[list[Unit], Unit | None]:
    """The unit that makes a value, and the units of these kinds passed on the way to it."""
    passed: list[Unit] = []
    while True:
        sources = list(network.sources(value))
        if len(sources) != 1 or sources[0] not in made:
            return passed, None
        unit = network.units[made[sources[0]]]
        if unit.kind not in through or len(unit.inputs) != 1:
            return passed, unit
        passed.insert(0, unit)
        value = unit.inputs[0]
