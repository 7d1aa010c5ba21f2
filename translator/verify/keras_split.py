"""A layer with an activation inside, seen as two steps: so that the value in between has a name and can be judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from translator.claims import KerasValue
from translator.verify.facts_keras import inner_activation
from translator.verify.keras_graph import INPUT, KerasGraph, Step

BEFORE = " (linear)"
"""Behind a layer's path: the layer without its activation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearHalf(Step):
    """The layer's own work, its activation left out."""

    def run(self, values: Mapping[int, Any]) -> list[Any]:
        """Compute the step with the layer's activation taken away, and give it back."""
        layer: Any = self.operation
        activation = layer.activation
        layer.activation = None
        try:
            return Step.run(self, values)
        finally:
            layer.activation = activation


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationHalf(Step):
    """The activation alone."""

    def run(self, values: Mapping[int, Any]) -> list[Any]:
        """Compute the layer's activation of its one input."""
        layer: Any = self.operation
        return [layer.activation(values[self.inputs[0]])]


def split_activations(graph: KerasGraph) -> KerasGraph:
    """The same graph, with two steps for each layer that has an activation inside.

    The value before the activation is output 0 of the layer's path with ` (linear)` behind it. Numbers of the values
    that were there before stay the same.
    """
    found = KerasGraph(
        shapes=list(graph.shapes), dtypes=list(graph.dtypes), producer=[INPUT] * len(graph.producer),
        names=dict(graph.names), entered=dict(graph.entered), inputs=list(graph.inputs), outputs=list(graph.outputs),
    )  # fmt: skip
    for step in graph.steps:
        for part in _parts(found, step):
            found.steps.append(part)
            for number in part.outputs:
                found.producer[number] = len(found.steps) - 1
    return found


def _parts(graph: KerasGraph, step: Step) -> list[Step]:
    if len(step.outputs) != 1 or not has_activation(step.operation):
        return [step]
    result = step.outputs[0]
    graph.shapes.append(graph.shapes[result])
    graph.dtypes.append(graph.dtypes[result])
    graph.producer.append(INPUT)
    middle = len(graph.shapes) - 1
    graph.names[KerasValue(operation=step.path + BEFORE, call=step.call)] = middle
    common = {"call": step.call, "operation": step.operation, "node": step.node}
    linear = LinearHalf(
        path=step.path + BEFORE, bound=step.bound, inputs=step.inputs, outputs=(middle,), **common
    )  # fmt: skip
    activation = ActivationHalf(path=step.path, bound={}, inputs=(middle,), outputs=(result,), **common)
    return [linear, activation]


def has_activation(operation: keras.Operation) -> bool:
    """Whether the operation is a layer of Keras' own with an activation inside that does something."""
    return inner_activation(operation) is not None
