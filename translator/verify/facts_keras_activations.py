"""Keras' activations as layers, as functions and as operations of `keras.ops`, described in the words of `facts`."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from translator.verify.activation_numbers import identified
from translator.verify.facts import Activation, Ints, clip
from translator.verify.keras_kinds import TABLE, describes, keras_class, keras_classes, size_of

_FUNCTIONS = {
    "relu": "relu", "Relu": "relu", "silu": "silu", "swish": "silu", "Silu": "silu", "sigmoid": "sigmoid",
    "Sigmoid": "sigmoid", "tanh": "tanh", "Tanh": "tanh", "selu": "selu", "Selu": "selu", "softsign": "softsign",
    "Softsign": "softsign", "mish": "mish", "Mish": "mish", "hard_sigmoid": "hard_sigmoid",
    "HardSigmoid": "hard_sigmoid",
    "hard_silu": "hard_silu", "hard_swish": "hard_silu", "HardSilu": "hard_silu", "log_sigmoid": "log_sigmoid",
    "LogSigmoid": "log_sigmoid", "tanh_shrink": "tanh_shrink", "TanhShrink": "tanh_shrink", "softmax": "softmax",
    "log_softmax": "log_softmax", "linear": "linear", "exponential": "exponential", "Exp": "exponential",
}  # fmt: skip

_SET: dict[str, tuple[str, ...]] = {
    "leaky_relu": ("negative_slope",), "elu": ("alpha",), "celu": ("alpha",), "hard_shrink": ("threshold",),
    "soft_shrink": ("threshold",), "gelu": ("approximate",),
}  # fmt: skip
_FIXED = {"relu6": clip(0.0, 6.0), "hard_tanh": clip(-1.0, 1.0)}

_OPERATIONS = {
    "LeakyRelu": ("leaky_relu", ("negative_slope",)), "Elu": ("elu", ("alpha",)), "Celu": ("celu", ("alpha",)),
    "HardShrink": ("hard_shrink", ("threshold",)), "SoftShrink": ("soft_shrink", ("threshold",)),
    "LeakyReLU": ("leaky_relu", ("negative_slope",)), "ELU": ("elu", ("alpha",)),
}  # fmt: skip


def activation_of(function: Any) -> Activation:
    """An activation function of Keras by its name, with the defaults it is called with; any other by its numbers."""
    name = getattr(function, "__name__", type(function).__name__)
    if keras_classes(function):
        described = next((TABLE[c](function, None) for c in keras_classes(function) if c in TABLE), None)
        if isinstance(described, Activation):
            return described
    elif str(getattr(function, "__module__", "")).split(".")[0] in ("keras", "tf_keras"):
        if name in _SET:
            defaults = inspect.signature(function).parameters
            return Activation(name=name, settings=tuple((key, defaults[key].default) for key in _SET[name]))
        if name == "softplus":
            return Activation(name=name, settings=(("beta", 1.0),))
        if name in _FIXED or name in _FUNCTIONS:
            return _FIXED.get(name) or Activation(name=_FUNCTIONS[name])
    return identified(function) or Activation(name=name, function=function)


@describes(*(name for name in _FUNCTIONS if name[0].isupper()))
def _function(op: Any, _: Ints | None) -> Activation:
    return Activation(name=_FUNCTIONS[keras_class(op)])


@describes("Activation")
def _activation(op: Any, _: Ints | None) -> Activation:
    return activation_of(op.activation)


@describes(*_OPERATIONS)
def _set_function(op: Any, _: Ints | None) -> Activation:
    name, keys = _OPERATIONS[keras_class(op)]
    return Activation(name=name, settings=tuple((key, float(getattr(op, key))) for key in keys))


@describes("Gelu")
def _gelu(op: Any, _: Ints | None) -> Activation:
    return Activation(name="gelu", settings=(("approximate", bool(op.approximate)),))


@describes("Softplus")
def _softplus(op: Any, _: Ints | None) -> Activation:
    return Activation(name="softplus", settings=(("beta", 1.0),))


@describes("Relu6")
def _relu6(op: Any, _: Ints | None) -> Activation:
    return clip(0.0, 6.0)


@describes("HardTanh")
def _hard_tanh(op: Any, _: Ints | None) -> Activation:
    return clip(-1.0, 1.0)


@describes("Clip")
def _clip(op: Any, _: Ints | None) -> Activation | None:
    low, high = op.x_min, op.x_max
    numbers = isinstance(low, int | float | np.number) and isinstance(high, int | float | np.number)
    return clip(float(low), float(high)) if numbers else None


@describes("ReLU")
def _relu(op: Any, _: Ints | None) -> Activation:
    ceiling, slope, threshold = op.max_value, float(op.negative_slope or 0.0), float(op.threshold or 0.0)
    if threshold == 0.0 and ceiling is None:
        return (
            Activation(name="leaky_relu", settings=(("negative_slope", slope),)) if slope else Activation(name="relu")
        )
    if threshold == 0.0 and slope == 0.0:
        return clip(0.0, float(ceiling))
    settings = (("max_value", str(ceiling)), ("negative_slope", slope), ("threshold", threshold))
    return Activation(name="relu", settings=settings)


@describes("Threshold")
def _threshold(op: Any, _: Ints | None) -> Activation:
    settings = (("threshold", float(op.threshold)), ("value", float(op.default_value)))
    return Activation(name="threshold", settings=settings)


@describes("PReLU")
def _prelu(op: Any, _: Ints | None) -> Activation | None:
    return Activation(name="prelu", settings=(("slopes", size_of(op.alpha)),)) if op.built else None


@describes("Softmax", "LogSoftmax")
def _softmax(op: Any, _: Ints | None) -> Activation:
    return Activation(name="softmax" if keras_class(op) == "Softmax" else "log_softmax")
