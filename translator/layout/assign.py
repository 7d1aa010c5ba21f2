"""Decide a layout for every runtime value first; the plan applies the decision afterwards.

One walk in order of computation: every op says what it demands and how its result then lies. A transpose stands only
where an input's layout isn't the one demanded. Of the free choices (the model's inputs) the fewest transposes win.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from translator.graph.view import Graph, NodeView
from translator.layout.kinds import Demand, demand
from translator.types import Layout

_MAX_TRIALS = 16

Shared = tuple[int, frozenset[int]]
"""A group of nodes that are one layer: its number, and the ranks of what it is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """layouts: of every runtime value. demands: of every node, by its first output. transposes: how many are needed."""

    layouts: Mapping[str, Layout]
    demands: Mapping[str, Demand]
    outputs: Mapping[str, Layout]
    transposes: int


def assign(graph: Graph) -> Assignment:
    """The assignment with the fewest transposes; ties go to channels-last images, then to PyTorch's order.

    Of few inputs every combination is tried; of many, each in turn with the others as they are.
    """
    options = {name: _input_options(graph, name) for name in graph.inputs}
    if math.prod(map(len, options.values())) <= _MAX_TRIALS:
        trials = itertools.product(*options.values())
        walked = [_walk(graph, dict(zip(options, trial, strict=True))) for trial in trials]
        return min(walked, key=lambda a: a.transposes)
    chosen = {name: first for name, (first, *_) in options.items()}
    best = _walk(graph, chosen)
    for name, (_, *others) in options.items():
        for other in others:
            trial = _walk(graph, {**chosen, name: other})
            if trial.transposes < best.transposes:
                best, chosen = trial, {**chosen, name: other}
    return best


def _input_options(graph: Graph, name: str) -> list[Layout]:
    rank = graph.rank(name)
    if rank < 3 or not graph.dtypes.get(name, "float32").startswith(("float", "bfloat")):
        return [Layout.identity(rank)]
    ordered = [Layout.channels_last(rank), Layout.identity(rank)]
    return ordered if rank >= 4 else list(reversed(ordered))


def _walk(graph: Graph, inputs: dict[str, Layout]) -> Assignment:
    layouts: dict[str, Layout] = dict(inputs)
    demands: dict[str, Demand] = {}
    moved: set[tuple[str, Layout]] = set()
    together = _together(graph)
    chosen: dict[Shared, Layout] = {}
    for node in graph.nodes:
        have = {v: layouts[v] for v in node.inputs if v in layouts}
        key = together.get(_key(node))
        if key is None:
            wanted = demand(node, have, graph)
        else:
            main, ranks = node.inputs[0], key[1]
            lies = chosen.setdefault(key, have[main]) if len(ranks) == 1 else Layout.identity(graph.rank(main))
            wanted = demand(node, {**have, main: lies}, graph)
        demands[_key(node)] = wanted
        moved |= {(v, want) for v, want in wanted.inputs.items() if layouts[v] != want}
        layouts.update(zip(node.outputs, wanted.outputs, strict=False))
    outputs = {name: _public(layouts[name]) for name in graph.outputs if name in layouts}
    moved |= {(name, want) for name, want in outputs.items() if layouts[name] != want}
    return Assignment(layouts=layouts, demands=demands, outputs=outputs, transposes=len(moved))


def _together(graph: Graph) -> dict[str, Shared]:
    """The nodes that are calls of one layer, by first output: they read the same weights, so they have one axis."""
    groups: dict[tuple[object, ...], list[NodeView]] = {}
    for node in graph.nodes:
        weights = tuple(graph.derived.get(v) for v in node.inputs[1:])
        if any(weights) and node.inputs[0] and graph.is_runtime(node.inputs[0]):
            groups.setdefault((node.key, *weights), []).append(node)
    return {
        _key(node): (number, frozenset(graph.rank(n.inputs[0]) for n in nodes))
        for number, nodes in enumerate(groups.values())
        for node in nodes
        if len(nodes) > 1
    }


def _key(node: NodeView) -> str:
    return node.outputs[0]


def _public(layout: Layout) -> Layout:
    """How a user gets an output: channels last or in PyTorch's order, never anything else."""
    rank = len(layout.axes)
    if layout.view is not None:
        return Layout.identity(len(layout.view[:2]))
    return layout if layout in (Layout.identity(rank), Layout.channels_last(rank)) else Layout.identity(rank)
