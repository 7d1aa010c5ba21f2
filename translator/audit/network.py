"""A model as a network of units that belongs to neither framework: what the aligner sees of either side.

A unit is a layer, or a function that counts as one (a ReLU, a sum, a pooling), wherever its author wrote it. What only
moves elements (reshape, transpose) is no unit: an edge runs past it. An activation inside a Keras layer is a unit of
its own; a padding belongs to the window that follows it. Nothing here imports a framework.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from translator.bindings import Piece
from translator.types import Shape
from translator.verify.facts import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A parameter, buffer or variable of a unit.

    slot: what it is to the unit ("weight", "running_mean"; "kernel", "moving_mean"). name: in PyTorch the state-dict
    name; in Keras the layer's path and the slot. trainable: a parameter, or a trainable variable. derived: the unit
    computes with something made of it (a standardised kernel), not with itself. handle: Keras' variable. pieces: where
    it is not a whole tensor of PyTorch's: the parts of tensors that it is, one below the other. role: the slot that it
    fills, where a function of the user's own computes with it under another name. turned: a matrix whose tensor lies
    as (in, out), as `x @ weight` wants it; shape is (out, in) all the same.
    """

    slot: str
    name: str
    shape: tuple[int, ...]
    trainable: bool = True
    derived: bool = False
    handle: Any = field(default=None, compare=False, repr=False)
    pieces: tuple[Piece, ...] = ()
    role: str = ""
    turned: bool = False

    @property
    def end(self) -> str:
        """The last part of the slot that it fills: "kernel" for "query/kernel"."""
        return (self.role or self.slot).rsplit("/", 1)[-1]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def parts(self) -> tuple[Piece, ...]:
        """The PyTorch tensors, or parts of them, that it is, one below the other."""
        return self.pieces or (Piece(tensor=self.name),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One layer call.

    index: its place in the network, after everything it needs. kind: a coarse word both frameworks share ("linear",
    "norm", "act", "pool", "add" …). signature: what must agree besides the kind for two units to be the same layer
    with the same weights (sizes in an order of neither framework). inputs: numbers of the values it reads, in order;
    outputs: of those it makes. path, call: the module or the operation, and which of its calls. text: for people.
    operations: Keras' operations, paddings first; module: PyTorch's. absorbed: units that became part of this one.
    function: name of the function that computes with weights of its own ("add", "mul"), where there is no layer.
    equation: of an einsum.
    """

    index: int
    kind: str
    signature: tuple[Any, ...]
    path: str
    call: int
    text: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    facts: Facts | None = None
    weights: tuple[Weight, ...] = ()
    module: Any = field(default=None, compare=False, repr=False)
    operations: tuple[Any, ...] = field(default=(), compare=False, repr=False)
    absorbed: tuple[Unit, ...] = ()
    function: str = ""
    equation: str = ""

    @property
    def elements(self) -> int:
        """Number of elements of all its weights."""
        return sum(w.size for w in self.weights)

    def weight(self, slot: str) -> Weight | None:
        """The weight in that slot, if there is one."""
        return next((w for w in self.weights if (w.role or w.slot) == slot), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A whole model. Units stand in an order in which they can run.

    shapes: of every value; in PyTorch's order for PyTorch, in Keras' for Keras. past: for a value that was only moved
    or passed on, the value it came from (a chain ends at a unit's output or an input). scalars: for some of these the
    arithmetic with a number that made them, such as ("mul", 0.5). inputs, outputs: values.
    """

    name: str
    units: tuple[Unit, ...]
    shapes: tuple[Shape, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    past: dict[int, tuple[int, ...]] = field(default_factory=dict)
    scalars: dict[int, tuple[str, float]] = field(default_factory=dict)

    def producers(self) -> dict[int, int]:
        """The unit that makes each value."""
        return {value: unit.index for unit in self.units for value in unit.outputs}

    def sources(self, value: int) -> Iterator[int]:
        """The values that `value` was moved from, first ones first: unit outputs or inputs of the model."""
        stack, seen = [value], set()
        while stack:
            current = stack.pop()
            if current in seen:
                continue
            seen.add(current)
            if current in self.past:
                stack.extend(reversed(self.past[current]))
            else:
                yield current

    def wiring(self) -> tuple[tuple[int, ...], ...]:
        """For each unit the units that it reads, one entry per argument in order; -1 - n for input n of the model."""
        made = self.producers()
        entry = {value: -1 - n for n, value in enumerate(self.inputs)}
        rows = []
        for unit in self.units:
            row: list[int] = []
            for value in unit.inputs:
                row.extend(made[s] if s in made else entry[s] for s in self.sources(value) if s in made or s in entry)
            rows.append(tuple(row))
        return tuple(rows)
