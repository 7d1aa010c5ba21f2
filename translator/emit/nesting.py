"""Cut a very deep plan into nested models, one per PyTorch module.

Keras walks a Functional graph by recursion, once per layer of its longest chain: at about 1,000 the interpreter stops
it, at build and at load. A plan whose chain is longer than `LIMIT` becomes models in models, along the module tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from translator.plan.calls import Call, LayerCall, OpCall, Plan, refs
from translator.plan.naming import clean

LIMIT = 600
"""Longest chain of calls in one model. Python's own limit is 1,000 frames; callers need some of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Consecutive calls as one nested model: `inputs` come from outside, `outputs` are read outside."""

    name: str
    items: tuple[Block | Call, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def nest(plan: Plan) -> tuple[Block | Call, ...]:
    """The calls of a plan, nested where a flat model would be too deep."""
    if not is_deep(plan):
        return plan.calls
    used = {name for call in plan.calls for arg in (*call.args, *call.kwargs.values()) for name in refs(arg)}
    taken = {spec.name for spec in plan.layers} | {c.name for c in plan.calls if isinstance(c, OpCall)} | used
    return _nest(plan.calls, _Readers(plan), taken, level=1)


def is_deep(plan: Plan) -> bool:
    """Whether the Keras model of a plan is made of models: a flat one would be too deep."""
    return depth(plan.calls) > LIMIT


def depth(calls: Sequence[Call]) -> int:
    """Number of calls on the longest chain."""
    chain: dict[str, int] = {}
    longest = 0
    for call in calls:
        here = 1 + max((chain.get(name, 0) for name in _read(call)), default=0)
        longest = max(longest, here)
        chain.update(dict.fromkeys(call.outputs, here))
    return longest


class _Readers:
    """Where each value is read last, by the position of the call; outputs of the plan are read at the very end."""

    def __init__(self, plan: Plan) -> None:
        self.position = {id(call): i for i, call in enumerate(plan.calls)}
        self.last: dict[str, int] = {}
        for i, call in enumerate(plan.calls):
            for name in _read(call):
                self.last[name] = i
        self.last.update({value: len(plan.calls) for _, value in plan.outputs})
        self.shared = _shared(plan)


def _shared(plan: Plan) -> set[str]:
    seen: set[str] = set()
    shared: set[str] = set()
    for call in plan.calls:
        if isinstance(call, LayerCall):
            (shared if call.layer in seen else seen).add(call.layer)
    return shared


def _nest(calls: Sequence[Call], readers: _Readers, taken: set[str], level: int) -> tuple[Block | Call, ...]:
    items: list[Block | Call] = []
    for (scope, _), group in groupby(calls, key=lambda c: _scope(c, level)):
        run = list(group)
        shares = any(isinstance(c, LayerCall) and c.layer in readers.shared for c in run)
        if not scope or len(run) < 2 or shares:
            items.extend(run)
            continue
        inner = _nest(run, readers, taken, level + 1) if depth(run) > LIMIT else tuple(run)
        items.append(_block(clean(scope), run, inner, readers, taken))
    if len(items) > LIMIT and not any(isinstance(i, Block) for i in items):
        return tuple(_chunks([i for i in items if not isinstance(i, Block)], readers, taken))
    return tuple(items)


def _chunks(calls: list[Call], readers: _Readers, taken: set[str]) -> Iterable[Block]:
    """Without modules to go by, runs of equal length."""
    size = LIMIT // 4
    for start in range(0, len(calls), size):
        run = calls[start : start + size]
        yield _block(f"part_{start // size}", run, tuple(run), readers, taken)


def _block(base: str, run: list[Call], inner: tuple[Block | Call, ...], readers: _Readers, taken: set[str]) -> Block:
    made = {name for call in run for name in call.outputs}
    read = dict.fromkeys(name for call in run for name in _read(call) if name not in made)
    end = readers.position[id(run[-1])]
    outputs = [name for call in run for name in call.outputs if readers.last.get(name, -1) > end]
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}_part{count}"
    taken.add(name)
    return Block(name=name, items=inner, inputs=tuple(read), outputs=tuple(outputs))


def _scope(call: Call, level: int) -> tuple[str, int]:
    scopes = call.origin.scopes
    return (scopes[level][0], scopes[level][1]) if len(scopes) > level else ("", 0)


def _read(call: Call) -> Iterable[str]:
    return (name for arg in (*call.args, *call.kwargs.values()) for name in refs(arg))
