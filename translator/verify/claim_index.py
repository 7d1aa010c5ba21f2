"""The claims, looked up in the Keras graph: which numbered value stands for which tensor of which module call.

A claim that points to nothing is a finding here; what lacks a claim is found later, from the nn.Module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from translator.claims import Claims, ModuleClaim, ValueClaim
from translator.types import Layout
from translator.verify.keras_graph import INPUT, KerasGraph
from translator.verify.keras_replay import Segment, segment
from translator.verify.torch_record import Key

ROOT: Key = ("", 0)
"""The call of the whole model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A value of the graph, by number, and how a PyTorch tensor lies in it. path: the operation that computes it."""

    value: int
    layout: Layout
    path: str


Targets = tuple[Target | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """What a module call is claimed to be on the Keras side. first: the call whose inputs these are.

    arguments: which argument each input is, () where they are simply the tensors that the call gets.
    """

    key: Key
    first: Key
    inputs: Targets
    outputs: Targets
    covers: tuple[Key, ...] = ()
    arguments: tuple[str, ...] = ()

    def given(self, arguments: Sequence[str]) -> Targets:
        """The values claimed for a call's tensor arguments, in the order of those: one may be missing this time."""
        if not self.arguments:
            return self.inputs
        known = dict(zip(self.arguments, self.inputs, strict=True))
        return tuple(known.get(name) for name in arguments)

    @property
    def keras(self) -> str:
        """Path of the operation that computes the first known output, "" if none is known."""
        return next((t.path for t in self.outputs if t is not None), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A claim that can't be right: the layer it speaks of and why."""

    layer: str
    why: str


@dataclass(slots=True, kw_only=True)
class ClaimIndex:
    """All twins by their call (the whole model's among them), by the call where their inputs are seen, and problems."""

    graph: KerasGraph
    inputs: Targets
    twins: dict[Key, Twin] = field(default_factory=dict)
    begins: dict[Key, list[Twin]] = field(default_factory=dict)
    covered: dict[Key, Key] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def demands(self) -> Counter[int]:
        """How often one run takes each value."""
        wanted: Counter[int] = Counter()
        for twin in self.twins.values():
            wanted.update(t.value for t in (*twin.inputs, *twin.outputs) if t is not None)
        return wanted

    def part(self, key: Key) -> Segment | None:
        """The steps between a twin's inputs and outputs; None where an input or all outputs are not known."""
        twin = self.twins[key]
        outputs = [t.value for t in twin.outputs if t is not None]
        if not outputs or not twin.inputs or any(t is None for t in twin.inputs):
            return None
        return segment(self.graph, [t.value for t in twin.inputs if t is not None], outputs)


def index_claims(claims: Claims, graph: KerasGraph) -> ClaimIndex:
    """Look all claims up. The first claim for a module call counts; a second one is a problem."""
    index = ClaimIndex(graph=graph, inputs=())
    index.inputs = _targets(index, claims.inputs, "the model's input")
    for target in index.inputs:
        if target is not None and graph.producer[target.value] != INPUT:
            index.problems.append(Problem(layer=target.path, why="claimed as an input of the model, and is computed"))
    missing = [v for v in graph.inputs if v not in {t.value for t in index.inputs if t}]
    for number in missing:
        index.problems.append(Problem(layer=_name(graph, number), why="an input of the Keras model that nothing feeds"))
    whole = ModuleClaim(path=ROOT[0], call=ROOT[1], inputs=claims.inputs, outputs=claims.outputs)
    for claim in (whole, *(m for m in claims.modules if (m.path, m.call) != ROOT)):
        _add(index, claim)
    return index


def _add(index: ClaimIndex, claim: ModuleClaim) -> None:
    key = (claim.path, claim.call)
    if key in index.twins:
        index.problems.append(Problem(layer=claim.path, why=f"call {claim.call} is claimed twice"))
        return
    name = claim.path or "the model"
    twin = Twin(
        key=key,
        first=claim.covers[0] if claim.covers else key,
        # The whole model's inputs are given, not compared.
        inputs=() if key == ROOT else _targets(index, claim.inputs, name),
        outputs=_targets(index, claim.outputs, name),
        covers=claim.covers,
        arguments=() if key == ROOT else claim.arguments,
    )
    index.twins[key] = twin
    index.begins.setdefault(twin.first, []).append(twin)
    index.covered.update(dict.fromkeys(claim.covers, key))


def _targets(index: ClaimIndex, claims: Sequence[ValueClaim | None], layer: str) -> Targets:
    found: list[Target | None] = []
    for claim in claims:
        number = index.graph.names.get(claim.keras) if claim is not None else None
        if claim is not None and number is None:
            value = f"{claim.keras.operation} (call {claim.keras.call}, output {claim.keras.tensor})"
            index.problems.append(Problem(layer=layer, why=f"claims {value}, which the Keras model does not have"))
        known = claim is not None and number is not None
        found.append(Target(value=number, layout=claim.layout, path=claim.keras.operation) if known else None)  # type: ignore[arg-type, union-attr]
    return tuple(found)


def _name(graph: KerasGraph, number: int) -> str:
    return next((value.operation for value, n in graph.names.items() if n == number), "?")
