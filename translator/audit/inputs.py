"""Which input of the one model is which of the other: by shape, then by what reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from translator.audit.network import Network
from translator.audit.values import choose
from translator.errors import InputError
from translator.types import Shape
from translator.verify.keras_graph import KerasGraph

_NEVER, _ODD = 1e6, 1e3


def input_shapes(network: Network, graph: KerasGraph) -> tuple[list[Shape], InputError | None]:
    """Concrete shapes of the Keras model's inputs, in its order, for PyTorch's example; and what does not fit.

    Where something does not, the shapes are Keras' own: enough to say whether the two models have to do with each
    other at all.
    """
    given = [network.shapes[v] for v in network.inputs]
    wanted = [tuple(graph.shapes[v]) for v in graph.inputs]
    if len(given) != len(wanted):
        text = f"PyTorch's model takes {_count(given)}, Keras' takes {_count(wanted)}"
        return wanted, InputError(text, fix="audit models that take the same inputs")
    costs = np.array([[_cost(a, b) + (i != j) for i, a in enumerate(given)] for j, b in enumerate(wanted)])
    found: list[Shape] = []
    for j, i in zip(*_assigned(costs), strict=True):
        layout = choose(given[i], wanted[j], None, None)
        if layout is None or layout.view is not None:
            text = f"PyTorch's example input is {_text(given[i])}, the Keras model takes {_text(wanted[j])}"
            fix = "give --input-shape (with the batch, in PyTorch's order) that fits both"
            return wanted, InputError(text, fix=fix)
        found.append(layout.keras_shape(given[i]))
    return found, None


def same_order(left: Network, right: Network) -> Network:
    """Keras' network (right) with its inputs in the order of PyTorch's: first by what fits, then by what reads them."""
    if len(left.inputs) < 2 or len(left.inputs) != len(right.inputs):
        return right
    ours, theirs = _readers(left), _readers(right)
    costs = np.zeros((len(ours), len(theirs)))
    for i, a in enumerate(left.inputs):
        for j, b in enumerate(right.inputs):
            shared = sum((ours[i] & theirs[j]).values()) / max(sum((ours[i] | theirs[j]).values()), 1)
            costs[i, j] = _cost(left.shapes[a], right.shapes[b]) - shared + 0.01 * (i != j)
    _, columns = _assigned(costs)
    return replace(right, inputs=tuple(right.inputs[j] for j in columns))


def _readers(network: Network) -> list[Counter[object]]:
    """For each input the kinds and sizes of the units that read it."""
    place = {value: n for n, value in enumerate(network.inputs)}
    found: list[Counter[object]] = [Counter() for _ in network.inputs]
    for unit in network.units:
        for number in {place[s] for value in unit.inputs for s in network.sources(value) if s in place}:
            found[number][unit.kind, unit.signature] += 1
    return found


def _assigned(costs: np.ndarray) -> tuple[list[int], list[int]]:
    rows, columns = linear_sum_assignment(costs)
    return [int(i) for i in rows], [int(j) for j in columns]


def _cost(before: Shape, after: Shape) -> float:
    """Nothing where PyTorch's shape fits Keras', more where only the rank does, most where nothing does."""
    layout = choose(before, after, None, None)
    if layout is None or layout.view is not None:
        return _NEVER
    fits = all(a is None or b is None or a == b for a, b in zip(layout.keras_shape(before), after, strict=True))
    return 0.0 if fits else _ODD


def _count(inputs: Sequence[Shape]) -> str:
    return f"{len(inputs)} tensor{'' if len(inputs) == 1 else 's'}"


def _text(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("?" if n is None else str(n) for n in shape) + ")"
