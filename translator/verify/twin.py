"""Claims about one Keras model, restated for another that computes the same: same layers by name, whatever holds them.

The two graphs are paired step by step from the inputs on. A step is paired where its operation is the same (a layer:
by name; an operation: by class and arguments) and reads paired values. What isn't paired isn't claimed, and the judge
finds it uncovered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from translator.claims import Claims, KerasValue, ValueClaim
from translator.verify.keras_graph import KerasGraph, Step


def restate(claims: Claims, graph: KerasGraph, other: KerasGraph) -> Claims:
    """The claims, made about `graph`, as claims about `other`, whose inputs stand in the same order."""
    paired, paths = pair(graph, other)
    names: dict[int, KerasValue] = {}
    for name, number in other.names.items():
        names.setdefault(number, name)

    def value(claim: ValueClaim) -> ValueClaim | None:
        number = graph.names.get(claim.keras)
        mine = None if number is None else paired.get(number)
        return None if mine is None or mine not in names else replace(claim, keras=names[mine])

    def known(found: tuple[ValueClaim, ...]) -> tuple[ValueClaim, ...]:
        return tuple(v for v in map(value, found) if v is not None)

    return replace(
        claims,
        inputs=known(claims.inputs),
        outputs=known(claims.outputs),
        modules=tuple(
            replace(
                m,
                inputs=tuple(None if v is None else value(v) for v in m.inputs),
                outputs=tuple(None if v is None else value(v) for v in m.outputs),
            )
            for m in claims.modules
        ),
        parameters=tuple(replace(p, layer=paths[p.layer]) for p in claims.parameters if p.layer in paths),
    )


def pair(graph: KerasGraph, other: KerasGraph) -> tuple[dict[int, int], dict[str, str]]:
    """Numbers of values and paths of operations of `graph` with those of `other`."""
    values = dict(zip(graph.inputs, other.inputs, strict=False))
    paths: dict[str, str] = {}
    waiting: dict[tuple[Any, ...], list[Step]] = {}
    for step in other.steps:
        waiting.setdefault(_key(step, step.inputs), []).append(step)
    for step in graph.steps:
        if not all(number in values for number in step.inputs):
            continue
        found = waiting.get(_key(step, tuple(values[n] for n in step.inputs)))
        if found:
            mine = found.pop(0)
            values.update(zip(step.outputs, mine.outputs, strict=False))
            paths.setdefault(step.path, mine.path)
    return values, paths


def _key(step: Step, inputs: tuple[int, ...]) -> tuple[Any, ...]:
    operation = step.operation
    if isinstance(operation, keras.layers.Layer):
        return (type(operation).__name__, operation.name, inputs)
    arguments = keras.tree.map_structure(_text, (step.node.arguments.args, step.node.arguments.kwargs))
    settings = {k: _text(v) for k, v in vars(operation).items() if not k.startswith("_") and k != "name"}
    return (type(operation).__name__, repr(arguments), repr(sorted(settings.items())), inputs)


def _text(value: Any) -> str:
    if isinstance(value, keras.KerasTensor):
        return "tensor"
    if isinstance(value, np.ndarray):
        return f"array {value.dtype} {value.tobytes().hex()}"
    if isinstance(value, Mapping | list | tuple):
        return repr(value) if not isinstance(value, Mapping) else repr(sorted(value.items()))
    return repr(value)
