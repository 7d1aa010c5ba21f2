"""A Keras model that trains in float64: variables and computation, put back to float32 afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np

from translator.training.keras_side import numbers
from translator.verify.keras_graph import functional
from translator.verify.precision import keras_float64

_NARROW = ("float32", "float16", "bfloat16")


@contextmanager
def trains_in_float64(model: keras.Model) -> Iterator[None]:
    """Let `model` compute in float64 on float64 variables while the block runs.

    Afterwards every variable is float32 again and has the value that it had before: what was learned is forgotten.
    Optimizers and losses that are made inside the block are float64, too.
    """
    undo: list[Callable[[], None]] = []
    with keras_float64(_operations(model)):
        try:
            for variable in model.variables:
                if keras.backend.standardize_dtype(variable.dtype) in _NARROW:
                    _replace(variable, undo)
            for operation in (model, *_operations(model)):
                _accept_float64(operation, undo)
            yield
        finally:
            for step in reversed(undo):
                step()


def made_for_float64(model: keras.Model) -> keras.Model:
    """A copy of a Functional or Sequential model that computes in float64 for good, in its file as well.

    Names and weights are the same; the copy isn't compiled.
    """
    config = _wide(keras.saving.serialize_keras_object(model))
    config.pop("compile_config", None)
    copy = keras.saving.deserialize_keras_object(config)
    for mine, theirs in zip(copy.variables, model.variables, strict=True):
        mine.assign(numbers(theirs))
    return copy


def _wide(value: Any) -> Any:
    """A config with float64 wherever it asks for a narrower float."""
    if isinstance(value, dict):
        policy = value.get("class_name") == "DTypePolicy"
        named = {"name": "float64"} if policy and value["config"]["name"] in _NARROW else None
        return {
            key: named
            if key == "config" and named
            else "float64"
            if key == "dtype" and isinstance(item, str) and item in _NARROW
            else _wide(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return type(value)(_wide(item) for item in value)
    return value


def loss_in_float64(loss: Any) -> Any:
    """The same loss, which was perhaps made for float32, computing in float64."""
    if not isinstance(loss, keras.losses.Loss):
        return loss
    wide = object.__new__(type(loss))  # copy.copy() goes through its config, which may forget: Huber its delta
    wide.__dict__.update(vars(loss))
    wide._dtype_policy = keras.DTypePolicy("float64")
    wide._dtype = "float64"
    return wide


def _operations(model: keras.Model) -> list[keras.Operation]:
    """The model and every operation in it, those of nested models too, each once."""
    found: dict[int, keras.Operation] = {}
    stack: list[Any] = [model]
    while stack:
        operation = stack.pop()
        if id(operation) in found:
            continue
        found[id(operation)] = operation
        inside = functional(operation)
        if inside is not None:
            stack.extend(inside.operations)
        elif isinstance(operation, keras.layers.Layer):
            stack.extend(operation._layers)
    return list(found.values())


def _replace(variable: keras.Variable, undo: list[Callable[[], None]]) -> None:
    """Give the variable float64 storage with the same value."""
    dtype, value = variable.dtype, numbers(variable)

    def store(kind: str, array: np.ndarray) -> None:
        variable._dtype = kind
        variable._initialize(keras.ops.convert_to_tensor(array, dtype=kind))

    store("float64", value.astype(np.float64))
    undo.append(partial(store, dtype, value))


def _accept_float64(operation: Any, undo: list[Callable[[], None]]) -> None:
    """A functional model casts what it is given to the dtype of its symbolic inputs."""
    inside = functional(operation)
    for tensor in inside.inputs if inside is not None else ():
        if keras.backend.standardize_dtype(tensor.dtype) in _NARROW:
            undo.append(partial(setattr, tensor, "_dtype", tensor._dtype))
            tensor._dtype = "float64"
