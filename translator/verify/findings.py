"""What the runs found, per module call: the worst error in each dtype, alone and along the chain, and what is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from translator.types import Shape
from translator.verify.compare import Outcome
from translator.verify.torch_record import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The relative error that passes, per dtype (None: only reported), and for layers whose weights were computed.

    rounded: for module paths in `computed`, whose Keras weights are float32 results of arithmetic on PyTorch's.
    summed: module paths of which Keras holds sums of tensors: float64 runs put the sum into PyTorch, so float32 judges.
    The key of `by_dtype` may name a run of its own ("own weights") beside a dtype.
    """

    by_dtype: dict[str, float | None]
    computed: frozenset[str] = frozenset()
    summed: frozenset[str] = frozenset()
    rounded: float = 1e-5

    def alone(self, dtype: str, key: Key) -> float | None:
        """The limit for one layer alone."""
        limit = self.by_dtype[dtype]
        if dtype == "float32" and key[0] in self.summed:
            return self.rounded
        return self.rounded if limit is not None and key[0] in self.computed else limit

    def chain(self, dtype: str) -> float | None:
        """The limit along the chain."""
        limit = self.by_dtype[dtype]
        return self.rounded if limit is not None and self.computed else limit


@dataclass(slots=True)
class Worst:
    """The largest error of several comparisons, how many there were, and where the largest was."""

    error: float = -1.0
    max_abs: float = 0.0
    count: int = 0
    what: str = ""
    problem: str = ""

    def add(self, what: str, outcome: Outcome) -> None:
        """Take one more comparison in."""
        self.count += 1
        self.max_abs = max(self.max_abs, outcome.max_abs)
        worse = outcome.error > self.error or math.isnan(outcome.error)
        if worse or (outcome.problem and not self.problem):
            self.error, self.what = outcome.error, what
            self.problem = outcome.problem or self.problem

    def reason(self, limit: float | None) -> str:
        """Why this is out of `limit` in words; "" where it is within."""
        if self.problem:
            return f"{self.what}: {self.problem}"
        if limit is not None and not self.error <= limit:
            return f"{self.what}: relative error {self.error:.1e}"
        return ""


@dataclass(slots=True, kw_only=True)
class Entry:
    """One module call as PyTorch ran it, and everything found about it.

    shape, input_shape: of the first output and the first input, PyTorch's order. informative: at least one comparison
    of an output had a reference that varies, or the call was asked in another way that shows what it does.
    varies: whether the call could have such a reference at all (it reads floats or holds parameters).
    """

    key: Key
    type: str
    depth: int
    shape: tuple[int, ...]
    leaf: bool
    input_shape: tuple[int, ...] | None = None
    keras: str = ""
    varies: bool = True
    informative: bool = False
    alone: dict[str, Worst] = field(default_factory=dict)
    chain: dict[str, Worst] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def informed(self, what: str, outcome: Outcome) -> None:
        """Take note of a comparison: an output that varies says something of the call, what came in doesn't."""
        self.informative |= what.startswith("its output") and outcome.informative and not outcome.problem

    def wrong(self, limits: Limits) -> str:
        """Why this call is wrong by itself; "" where it is right."""
        if self.problems:
            return self.problems[0]
        for dtype, worst in self.alone.items():
            if reason := worst.reason(limits.alone(dtype, self.key)):
                return f"{reason} ({dtype})"
        if self.alone and self.varies and not self.informative:
            return "every reference is constant: agreement proves nothing"
        return ""

    def off(self, limits: Limits) -> str:
        """Why this call is wrong along the chain; "" where it is right."""
        for dtype, worst in self.chain.items():
            if reason := worst.reason(limits.chain(dtype)):
                return f"{reason} ({dtype})"
        return ""


@dataclass(slots=True)
class Book:
    """All entries in PyTorch's order of execution, and what belongs to no single call.

    misshapen: by Keras' step, the shape that Keras inferred for its output and the one it has.
    """

    entries: dict[Key, Entry] = field(default_factory=dict)
    uncovered: dict[Key, str] = field(default_factory=dict)
    lost: dict[Key, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    misshapen: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    compared: dict[str, int] = field(default_factory=dict)
    leaves: int = 0
    finished: int = 0

    def next_depth(self) -> int:
        """The place of the call that ends now."""
        self.finished += 1
        return self.finished - 1

    def alone(self, key: Key, dtype: str, what: str, outcome: Outcome) -> None:
        """A comparison of one layer fed PyTorch's own input."""
        entry = self.entries[key]
        entry.alone.setdefault(dtype, Worst()).add(what, outcome)
        entry.informed(what, outcome)
        self._count(f"alone {dtype}")

    def chain(self, key: Key, dtype: str, what: str, outcome: Outcome) -> None:
        """A comparison where the whole Keras model ran by itself."""
        entry = self.entries[key]
        entry.chain.setdefault(dtype, Worst()).add(what, outcome)
        entry.informed(what, outcome)
        self._count(f"chain {dtype}")

    def in_order(self) -> Iterator[Entry]:
        """Entries as PyTorch finished their calls."""
        yield from sorted(self.entries.values(), key=lambda e: e.depth)

    def _count(self, what: str) -> None:
        self.compared[what] = self.compared.get(what, 0) + 1
