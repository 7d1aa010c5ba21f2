"""Weights in and out of a Keras model through bindings, the layers found by their path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from translator.bindings import WeightBinding, to_keras, to_torch
from translator.emit.keras_model import variable_of
from translator.errors import InputError

Bound = Iterable[tuple[str, WeightBinding]]


def find_layer(model: keras.Model, path: str) -> keras.layers.Layer:
    """The layer at a path through nested models ("layer1/layer1_0_conv1"). Raises InputError where there is none."""
    found: Any = model
    for name in path.split("/"):
        try:
            found = found.get_layer(name)
        except (ValueError, AttributeError) as error:
            raise InputError(
                f"the Keras model has no layer {path}", fix="give the model that the weight map was written with"
            ) from error
    return found


def numbers(variable: keras.Variable) -> np.ndarray:
    """The value of a variable, on any backend."""
    return keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(variable))  # type: ignore[no-any-return]


def set_weights(model: keras.Model, bindings: Bound, state: Mapping[str, np.ndarray]) -> None:
    """Set every bound variable from PyTorch tensors by state-dict name. Nothing is set if one doesn't fit."""
    values = [(variable_of(find_layer(model, path), b.variable), to_keras(b, state)) for path, b in bindings]
    for variable, value in values:
        if tuple(variable.shape) != value.shape:
            raise InputError(f"{variable.path}: shape {tuple(variable.shape)} in the model, {value.shape} from PyTorch")
    for variable, value in values:
        variable.assign(np.ascontiguousarray(value))


def state_dict(model: keras.Model, bindings: Bound, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Every PyTorch tensor that the model's weights determine, by state-dict name, bit for bit."""
    read = (
        (b, numbers(variable_of(find_layer(model, path), b.variable))) for path, b in bindings if b.constant is None
    )
    return to_torch(read, shapes)
