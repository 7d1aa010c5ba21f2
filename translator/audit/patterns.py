"""Activations that were written out: `relu6(x + 3) / 6` is a hard sigmoid, `x * sigmoid(x)` a SiLU, on either side.

Whatever computes one value from one other by arithmetic and activations alone is asked for its numbers; where they are
those of an activation, it is one, however it was written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from translator.audit.network import Network, Unit
from translator.verify.activation_numbers import GRID, activation_with, formula_of
from translator.verify.facts import Activation

_MOST_STEPS = 24
Numbers = Callable[..., np.ndarray]

_JOINS: dict[str, Numbers] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "max": np.maximum, "min": np.minimum,
}  # fmt: skip

_SCALARS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "add": lambda x, c: x + c, "mul": lambda x, c: x * c, "div": lambda x, c: x / c, "pow": lambda x, c: x**c,
    "rsub": lambda x, c: c - x, "rdiv": lambda x, c: c / x, "max": np.maximum, "min": np.minimum,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Region:
    """Everything between one value and another. values: computed inside, the result among them."""

    source: int
    result: int
    values: frozenset[int]
    facts: Activation


def recognised(network: Network) -> Network:
    """Given: units and numbers that together are one activation. Result: one unit for it, the parts absorbed."""
    search = _Search(network)
    results = [v for unit in network.units if unit.kind in _JOINS for v in unit.outputs]
    results += list(network.scalars)
    gone: set[int] = set()
    for value in sorted(results, key=lambda v: -search.level(v)):
        if value in gone:
            continue
        region = search.region(value)
        if region is not None and not region.values & gone:
            gone |= region.values
            search.found.append(region)
    return search.joined() if search.found else network


@dataclass(slots=True)
class _Search:
    """A network with what is asked of it again and again."""

    network: Network
    found: list[_Region] = field(default_factory=list)
    made: dict[int, Unit] = field(default_factory=dict)
    readers: dict[int, list[int]] = field(default_factory=dict)
    levels: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        network = self.network
        self.made = {v: unit for unit in network.units for v in unit.outputs}
        for unit in network.units:
            for value in unit.inputs:
                self.readers.setdefault(value, []).extend(unit.outputs)
        for value, sources in network.past.items():
            for source in sources:
                self.readers.setdefault(source, []).append(value)

    def level(self, value: int) -> int:
        """How far a value is from the inputs: more than everything that it is made of."""
        stack = [value]
        while stack:
            top = stack[-1]
            waiting = [v for v in self._above(top) if v not in self.levels]
            if top in self.levels or not waiting:
                self.levels.setdefault(top, 1 + max((self.levels[v] for v in self._above(top)), default=-1))
                stack.pop()
            else:
                stack.extend(waiting)
        return self.levels[value]

    def _above(self, value: int) -> tuple[int, ...]:
        return self.made[value].inputs if value in self.made else self.network.past.get(value, ())

    def _opens(self, value: int) -> bool:
        """Whether the value is arithmetic, or an activation that can be computed."""
        unit = self.made.get(value)
        if unit is None:
            return value in self.network.scalars and self.network.scalars[value][0] in _SCALARS
        if unit.weights or len(unit.outputs) != 1:
            return False
        if unit.kind in _JOINS:
            return len(unit.inputs) == 2
        return isinstance(unit.facts, Activation) and len(unit.inputs) == 1 and formula_of(unit.facts) is not None

    def region(self, result: int) -> _Region | None:
        """What lies between the result and one other value, where that is an activation."""
        frontier, inside = {result}, set[int]()
        for _ in range(_MOST_STEPS):
            value = max(frontier, key=self.level)
            if not self._opens(value):
                return None
            inside.add(value)
            frontier = (frontier - {value}) | set(self._above(value))
            if len(frontier) > 1 or len(inside) < 2:
                continue
            (source,) = frontier
            facts = self._asked(result, source) if self._is_closed(inside, result, source) else None
            if facts is not None:
                return _Region(source=source, result=result, values=frozenset(inside), facts=facts)
        return None

    def _is_closed(self, inside: set[int], result: int, source: int) -> bool:
        """Whether nobody else reads what is computed inside, and the shape stays what it was."""
        network = self.network
        open_ones = inside - {result}
        read = {r for v in open_ones for r in self.readers.get(v, ())}
        kept = not open_ones & set(network.outputs) and read <= inside
        return kept and network.shapes[result] == network.shapes[source]

    def _asked(self, result: int, source: int) -> Activation | None:
        numbers: dict[int, np.ndarray] = {source: GRID}

        def of(value: int) -> np.ndarray:
            if value not in numbers:
                numbers[value] = self._computed(value, [of(v) for v in self._above(value)])
            return numbers[value]

        with np.errstate(all="ignore"):
            found = activation_with(of(result))
        return found if found is not None and found.name != "linear" else None

    def _computed(self, value: int, given: list[np.ndarray]) -> np.ndarray:
        unit = self.made.get(value)
        if unit is None:
            name, number = self.network.scalars[value]
            return _SCALARS[name](given[0], number)
        if isinstance(unit.facts, Activation):
            formula = formula_of(unit.facts, given[0])
            return formula if formula is not None else np.full_like(GRID, np.nan)
        return _JOINS[unit.kind](*given)

    def joined(self) -> Network:
        """The network with one unit for each region that was found."""
        past = dict(self.network.past)
        scalars = dict(self.network.scalars)
        last: dict[int, Unit] = {}
        gone: set[int] = set()
        for region in self.found:
            units = sorted({self.made[v].index for v in region.values if v in self.made})
            parts = tuple(self.network.units[i] for i in units)
            for value in region.values:
                past.pop(value, None)
                scalars.pop(value, None)
            gone.update(units)
            last[max(units)] = _one(parts, region)
        kept = [last.get(u.index, u) for u in self.network.units if u.index not in gone or u.index in last]
        numbered = tuple(replace(u, index=i) for i, u in enumerate(kept))
        return replace(self.network, units=numbered, past=past, scalars=scalars)


def _one(parts: tuple[Unit, ...], region: _Region) -> Unit:
    unit = parts[-1]
    absorbed = [a for p in parts for a in (*p.absorbed, p) if a.outputs != (region.result,)]
    return replace(
        unit, kind="act", signature=(region.facts.name,), facts=region.facts, inputs=(region.source,),
        outputs=(region.result,), module=None, absorbed=tuple(absorbed),
    )  # fmt: skip
