"""Compute values of a `KerasGraph` on demand, and free each as soon as nothing can ask for it any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from translator.errors import InternalError
from translator.types import Shape
from translator.verify.keras_graph import INPUT, KerasGraph


class Replay:
    """One run through the graph, driven by what is asked for.

    given: values of the model's inputs, by number. demands: how often each value will be taken; a value lives until
    its takes and the steps that read it are used up. misshapen: by step, where a value hasn't the shape that Keras
    inferred for it; noted there.
    """

    def __init__(
        self,
        graph: KerasGraph,
        given: Mapping[int, Any],
        demands: Counter[int],
        misshapen: dict[str, tuple[Shape, Shape]] | None = None,
    ) -> None:
        self.graph = graph
        self._misshapen = misshapen
        self.values: dict[int, Any] = dict(given)
        self.pending: Counter[int] = Counter(demands)
        for index in graph.needed(demands):
            self.pending.update(graph.steps[index].inputs)

    def take(self, value: int) -> Any:
        """The value, computed if need be; one of its takes is used up."""
        self._compute(value)
        result = self.values[value]
        self._release(value)
        return result

    def skip(self, value: int) -> None:
        """Use up one take of the value without looking at it."""
        self._release(value)

    def replace(self, value: int, tensor: Any) -> None:
        """Let everything that still reads `value` read `tensor` instead."""
        if self.pending[value] > 0:
            mask = getattr(self.values.get(value), "_keras_mask", None)
            if mask is not None:
                tensor._keras_mask = mask
            self.values[value] = tensor

    def _compute(self, value: int) -> None:
        stack = [value]
        while stack:
            wanted = stack[-1]
            if wanted in self.values:
                stack.pop()
                continue
            index = self.graph.producer[wanted]
            if index == INPUT:
                raise InternalError(f"value {wanted} of the Keras model was freed too early or never given")
            step = self.graph.steps[index]
            missing = [v for v in step.inputs if v not in self.values]
            if missing:
                stack.extend(missing)
                continue
            results = step.run(self.values)
            for number, result in zip(step.outputs, results, strict=True):
                self._note_shape(step.path, self.graph.shapes[number], tuple(getattr(result, "shape", ())))
                if self.pending[number] > 0:
                    self.values.setdefault(number, result)
            for number in step.inputs:
                self._release(number)
            stack.pop()
            if wanted not in self.values:
                raise InternalError(f"nothing was expected to read {step.path}, yet it is asked for")

    def _note_shape(self, path: str, inferred: Shape, own: Shape) -> None:
        fits = len(inferred) == len(own) and all(a is None or a == b for a, b in zip(inferred, own, strict=True))
        if self._misshapen is not None and not fits:
            self._misshapen.setdefault(path, (inferred, own))

    def _release(self, value: int) -> None:
        self.pending[value] -= 1
        if self.pending[value] <= 0:
            self.values.pop(value, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The steps between some values (the cut) and others (the outputs), and what they read from elsewhere."""

    cut: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[int, ...]
    outside: tuple[int, ...]

    @property
    def computed(self) -> frozenset[int]:
        """Outputs that depend on the cut."""
        return frozenset(self.outputs) - frozenset(self.cut) - frozenset(self.outside)


def segment(graph: KerasGraph, cut: Sequence[int], outputs: Sequence[int]) -> Segment:
    """Find the steps on the ways from `cut` to `outputs`.

    The search goes back from the outputs and never past the first of the cut, so it costs what lies between.
    """
    border = frozenset(cut)
    first = min((graph.producer[v] for v in cut), default=len(graph.steps))
    candidates: set[int] = set()
    stack = [v for v in outputs if v not in border]
    while stack:
        index = graph.producer[stack.pop()]
        if index == INPUT or index <= first or index in candidates:
            continue
        candidates.add(index)
        stack.extend(v for v in graph.steps[index].inputs if v not in border)
    reached = set(border)
    steps: list[int] = []
    outside: dict[int, None] = {}
    for index in sorted(candidates):
        step = graph.steps[index]
        if any(v in reached for v in step.inputs):
            steps.append(index)
            reached.update(step.outputs)
            outside.update(dict.fromkeys(v for v in step.inputs if v not in reached))
    outside.update(dict.fromkeys(v for v in outputs if v not in reached))
    return Segment(cut=tuple(cut), outputs=tuple(outputs), steps=tuple(steps), outside=tuple(outside))


def replay(graph: KerasGraph, part: Segment, values: Mapping[int, Any]) -> dict[int, Any]:
    """Compute the segment's outputs from `values`, which holds its cut and what it reads from outside."""
    known = dict(values)
    last = {v: i for i in part.steps for v in graph.steps[i].inputs}
    wanted = frozenset(part.outputs)
    for index in part.steps:
        step = graph.steps[index]
        # Something of the cut that another step of the segment computes stays what it was given as.
        for number, result in zip(step.outputs, step.run(known), strict=True):
            known.setdefault(number, result)
        for number in step.inputs:
            if last[number] == index and number not in wanted:
                del known[number]
    return {number: known[number] for number in part.outputs}


def to_keras(array: np.ndarray, dtype: str) -> Any:
    """A backend tensor of exactly this dtype; it shares no memory with `array`, which PyTorch may change in place."""
    return keras.ops.convert_to_tensor(np.array(array, order="C"), dtype=dtype)


def to_numpy(tensor: Any) -> np.ndarray:
    """A backend tensor as an array, without a copy where the backend allows it."""
    if keras.config.backend() == "tensorflow":  # NumPy 2 warns about TensorFlow's __array__, which Keras goes through
        array: np.ndarray = tensor.numpy()
        return array
    array = keras.ops.convert_to_numpy(tensor)
    return array


def backend_errors() -> tuple[type[Exception], ...]:
    """What an operation of a right-looking Keras model may raise when its shapes, dtypes or indices don't fit."""
    errors: Iterable[type[Exception]] = (ValueError, TypeError, RuntimeError, IndexError, KeyError, ArithmeticError)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        errors = (*errors, tf.errors.OpError)
    return tuple(errors)
