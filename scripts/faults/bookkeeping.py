"""Faults in the books: every number is right, and yet a weight is counted wrongly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scripts.faults.planting import Planted, Right, fault, pick


@fault("claims: a weight that is not counted", "bookkeeping")
def uncounted(right: Right, rng: np.random.Generator) -> Planted | None:
    """A Keras variable that belongs to nothing."""
    chosen = pick(rng, [p for p in right.claims.parameters if p.tensors])
    rest = tuple(p for p in right.claims.parameters if p is not chosen)
    layers = frozenset({chosen.tensors[0].rpartition(".")[0], chosen.layer})
    return Planted(
        model=right.model, layers=layers, where=f"{chosen.layer}/{chosen.variable}",
        claims=replace(right.claims, parameters=rest),
    )  # fmt: skip


@fault("claims: a weight that is counted twice", "bookkeeping")
def counted_twice(right: Right, rng: np.random.Generator) -> Planted | None:
    """One variable in two entries."""
    chosen = pick(rng, [p for p in right.claims.parameters if p.tensors])
    layers = frozenset({chosen.tensors[0].rpartition(".")[0], chosen.layer})
    return Planted(
        model=right.model, layers=layers, where=f"{chosen.layer}/{chosen.variable}",
        claims=replace(right.claims, parameters=(*right.claims.parameters, chosen)),
    )  # fmt: skip


@fault("claims: a weight of another tensor", "bookkeeping")
def misattributed(right: Right, rng: np.random.Generator) -> Planted | None:
    """Two tensors of one size with each other's entries."""
    shapes = {name: tuple(t.shape) for name, t in right.module.state_dict().items()}
    same = [p for p in right.claims.parameters if p.how == "same" and len(p.tensors) == 1]
    pairs = [
        (a, b)
        for i, a in enumerate(same)
        for b in same[i + 1 :]
        if shapes.get(a.tensors[0]) == shapes.get(b.tensors[0]) and a.variable == b.variable
    ]
    chosen = pick(rng, pairs)
    if chosen is None:
        return None
    a, b = chosen
    swapped = {id(a): replace(a, tensors=b.tensors), id(b): replace(b, tensors=a.tensors)}
    parameters = tuple(swapped.get(id(p), p) for p in right.claims.parameters)
    layers = frozenset(p.tensors[0].rpartition(".")[0] for p in chosen)
    return Planted(
        model=right.model, layers=layers, where=f"{a.layer} and {b.layer}",
        claims=replace(right.claims, parameters=parameters),
    )  # fmt: skip
