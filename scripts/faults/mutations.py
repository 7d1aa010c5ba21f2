"""One change to the Keras side of a random pair, and the PyTorch layers of which any is the right answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scripts.faults.random_nets import ACTIVATIONS, Net, Node, RandomPair, draw, random_pair, with_node

Rng = np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A pair that is wrong in one place. layers: PyTorch's names for it; "(model)" is a function in the forward."""

    pair: RandomPair
    kind: str
    layers: frozenset[str]


def _settings(op: str, **changed: Any) -> Callable[[Node, Rng], dict[str, Any]]:
    return lambda _node, _rng: changed


def _other_activation(node: Node, rng: Rng) -> dict[str, Any]:
    return {"kind": str(rng.choice([k for k in ACTIVATIONS if k != node.settings["kind"]]))}


_STRUCTURAL: dict[str, tuple[str, Callable[[Node, Rng], dict[str, Any]]]] = {
    "another epsilon": ("norm", lambda n, _: {"epsilon": n.settings["epsilon"] * 10}),
    "another activation": ("act", _other_activation),
    "another pooling": ("pool", lambda n, _: {"kind": "max" if n.settings["kind"] == "average" else "average"}),
    "padding off by one": ("conv", _settings("conv", shifted=True)),
    "multiply for add": ("add", _settings("add", multiplied=True)),
    "concat turned": ("concat", _settings("concat", turned=True)),
}

_WEIGHTS: dict[str, tuple[str, str, Callable[[np.ndarray, Rng], np.ndarray]]] = {
    "one element": ("conv", "kernel", lambda v, rng: _bumped(v, rng)),
    "sign turned": ("dense", "kernel", lambda v, _: -v),
    "scaled": ("conv", "kernel", lambda v, _: (v * np.float32(1.001)).astype(v.dtype)),
    "bias lost": ("dense", "bias", lambda v, _: np.zeros_like(v)),
    "statistics rotated": ("norm", "moving_mean", lambda v, _: np.roll(v, 1)),
}


def _bumped(value: np.ndarray, rng: Rng) -> np.ndarray:
    index = tuple(int(rng.integers(n)) for n in value.shape)
    value[index] += 1e-3
    return value


def mutant(rng: Rng) -> Mutant:
    """A random net with one random change that changes its function."""
    while True:
        kind = str(rng.choice([*_STRUCTURAL, *_WEIGHTS]))
        seed = int(rng.integers(1 << 32))
        found = _structural(kind, seed, rng) if kind in _STRUCTURAL else _in_weights(kind, seed, rng)
        if found is not None:
            return found


def _structural(kind: str, seed: int, rng: Rng) -> Mutant | None:
    op, settings = _STRUCTURAL[kind]
    net = draw(np.random.default_rng(seed))
    fitting = [n for n in net.nodes if n.op == op and _has_effect(kind, n)]
    if not fitting:
        return None
    node = fitting[int(rng.integers(len(fitting)))]
    changed = settings(node, rng)

    def change(own: Net) -> Net:
        return with_node(own, node.name, **changed)

    pair = random_pair(np.random.default_rng(seed), change=change)
    return Mutant(pair=pair, kind=f"{kind} at {node.name}", layers=_answers(net, node))


def _has_effect(kind: str, node: Node) -> bool:
    return kind != "padding off by one" or node.settings["padding"] > 0


def _in_weights(kind: str, seed: int, rng: Rng) -> Mutant | None:
    op, slot, change = _WEIGHTS[kind]
    pair = random_pair(np.random.default_rng(seed))
    fitting = [n for n in pair.net.nodes if n.op == op and (slot != "bias" or n.settings["bias"])]
    if not fitting:
        return None
    node = fitting[int(rng.integers(len(fitting)))]
    variable = next(w for w in pair.model.get_layer(node.name).weights if w.name == slot)
    variable.assign(change(variable.numpy().copy(), rng))
    return Mutant(pair=pair, kind=f"{kind} at {node.name}", layers=_answers(pair.net, node))


def _answers(net: Net, node: Node) -> frozenset[str]:
    """The layer's own name; for a join, which is a function in the forward, what reads it is right, too."""
    if node.op not in ("add", "concat"):
        return frozenset({f"parts.{node.name}"})
    readers = {f"parts.{n.name}" for n in net.nodes if node.name in n.inputs}
    return frozenset({"(model)", *readers})
