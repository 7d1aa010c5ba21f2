"""Recurrent layers: gates in another order, two biases against one."""

from __future__ import annotations

from collections.abc import Iterator

from translator.audit.bind import Bound, made
from translator.audit.network import Unit, Weight
from translator.bindings import Permute, Piece, Reshape
from translator.verify.facts import Recurrent

_GATES = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "rnn": (0,)}
"""For each gate of Keras, the place of PyTorch's."""


def recurrent(t: Unit, k: Unit) -> Iterator[Bound]:
    """The variables of a recurrent layer, both directions. Nothing where a GRU applies its reset gate elsewhere."""
    facts, theirs = t.facts, k.facts
    if not isinstance(facts, Recurrent) or not isinstance(theirs, Recurrent) or facts.cell != theirs.cell:
        return
    if facts.reset_after is not theirs.reset_after and facts.cell == "gru":
        return
    for direction, marker in (("", ("forward",)), ("_reverse", ("backward",))):
        weights = [w for w in k.weights if not theirs.bidirectional or any(m in w.slot for m in marker)]
        own = [w for w in t.weights if w.slot.endswith("_reverse") == bool(direction)]
        yield from _direction(t, k, facts, own, weights)
        if not theirs.bidirectional:
            return


def _direction(t: Unit, k: Unit, facts: Recurrent, own: list[Weight], theirs: list[Weight]) -> Iterator[Bound]:
    for start, end in (("weight_ih", "kernel"), ("weight_hh", "recurrent_kernel")):
        tensor, variable = _starting(own, start), _ending(theirs, end)
        if tensor is not None and variable is not None and tensor.size == variable.size:
            yield made(t, k, variable, _gates(tensor, facts), (Permute(axes=(1, 0)),))
    biases = [w for w in (_starting(own, "bias_ih"), _starting(own, "bias_hh")) if w is not None]
    variable = _ending(theirs, "bias")
    if variable is None or len(biases) != 2:
        return
    if variable.size == 2 * biases[0].size:
        pieces = tuple(p for bias in biases for p in _gates(bias, facts))
        shape = (variable.size,)
        yield made(t, k, variable, pieces, (Reshape(before=shape, after=variable.shape),))
    elif variable.size == biases[0].size and _GATES[facts.cell] == tuple(range(len(_GATES[facts.cell]))):
        yield made(t, k, variable, tuple(Piece(tensor=b.name) for b in biases), (), join="sum")


def _gates(tensor: Weight, facts: Recurrent) -> tuple[Piece, ...]:
    order = _GATES[facts.cell]
    if order == tuple(range(len(order))):
        return (Piece(tensor=tensor.name),)
    n = facts.units
    rest = tuple((0, size) for size in tensor.shape[1:])
    return tuple(Piece(tensor=tensor.name, region=((g * n, (g + 1) * n), *rest)) for g in order)


def _starting(weights: list[Weight], start: str) -> Weight | None:
    return next((w for w in weights if w.slot.startswith(start)), None)


def _ending(weights: list[Weight], end: str) -> Weight | None:
    return next((w for w in weights if w.slot.rsplit("/", 1)[-1] == end), None)
