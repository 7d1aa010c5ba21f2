"""Activation functions told apart by their numbers, where no name says what they are: a lambda, a partial, a def.

A function is asked once, in float64, on a fixed grid that reaches from next to nothing to far out, and compared with
formulas written in numpy alone. A setting (a slope, a border) is read off single points first, and must then hold on
the whole grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from translator.verify.facts import Activation, clip

Formula = Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]
_LARGE = 1e4
_LIMIT = 1e-9


def _grid() -> np.ndarray:
    """Rows for softmax, which looks at a whole row: a narrow one, a wide one, one around zero, one of corners."""
    narrow = np.linspace(-8.0, 8.0, 129)
    far = np.logspace(-2, math.log10(_LARGE), 64)
    near = np.logspace(-8, -1, 64)
    corners = np.array([-6.0, -3.0, -2.5, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 2.5, 3.0, 6.0, -_LARGE, _LARGE])
    rows = [narrow, [*-far, 0.0, *far], [*-near, 0.0, *near], np.resize(corners, 129)]
    return np.array(rows, dtype=np.float64)


GRID = _grid()


def formula_of(facts: Activation, numbers: np.ndarray = GRID) -> np.ndarray | None:
    """What an activation of that name and settings makes of the numbers; None for a name without a formula."""
    formula = _FORMULAS.get(facts.name)
    settings = dict(facts.settings)
    if formula is None or (facts.name == "relu" and settings):
        return None
    with np.errstate(all="ignore"):
        return formula(numbers, settings)


def same_function(want: Activation, got: Activation) -> bool | None:
    """Whether two activations have the same numbers; None where one of them can't be asked."""
    a, b = (sampled(f.function) if f.function is not None else formula_of(f) for f in (want, got))
    return None if a is None or b is None else _equal(a, b)


def identified(function: Callable[[Any], Any]) -> Activation | None:
    """The activation that a function computes, None where it is none of those with a formula."""
    got = sampled(function)
    return activation_with(got) if got is not None else None


def activation_with(values: np.ndarray) -> Activation | None:
    """The activation that has these values on the grid, None where it is none of those with a formula."""
    return next((c for c in _candidates(values) if _equal(_numbers(c), values)), None)


@lru_cache(maxsize=256)
def sampled(function: Callable[[Any], Any]) -> np.ndarray | None:
    """A Keras function's values on the grid in float64, None where it can't be asked or gives another shape."""
    import keras

    from translator.verify.keras_replay import backend_errors, to_keras, to_numpy
    from translator.verify.precision import keras_float64

    widened = [function] if isinstance(function, keras.Operation) else []
    refusals: tuple[type[Exception], ...] = (*backend_errors(), AttributeError, AssertionError)
    with keras_float64(widened):
        try:
            result = to_numpy(keras.ops.convert_to_tensor(function(to_keras(GRID, "float64"))))
        except refusals:
            return None
    return result if result.shape == GRID.shape and result.dtype == np.float64 else None


@lru_cache(maxsize=256)
def _numbers(facts: Activation) -> np.ndarray:
    found = formula_of(facts)
    return found if found is not None else np.full_like(GRID, np.nan)


def _equal(want: np.ndarray, got: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        off = np.abs(want - got) / np.maximum(np.abs(want), 1.0)
    return bool(((want == got) | (off <= _LIMIT)).all())


def _at(values: np.ndarray, x: float) -> float:
    return float(values[x == GRID][0])


def _candidates(values: np.ndarray) -> Iterator[Activation]:
    """Every activation with a formula; those with a setting with the one that single points speak for."""
    yield from (Activation(name=name) for name in _PLAIN)
    yield from (Activation(name="gelu", settings=(("approximate", tanh),)) for tanh in (False, True))
    low, high, one = _at(values, -_LARGE), _at(values, _LARGE), _at(values, -1.0)
    yield Activation(name="leaky_relu", settings=(("negative_slope", -one),))
    yield from (Activation(name=name, settings=(("alpha", -low),)) for name in ("elu", "celu") if low < 0)
    if low < high:
        yield clip(low, high)
    if _at(values, 0.0) > 0:
        yield Activation(name="softplus", settings=(("beta", round(math.log(2.0) / _at(values, 0.0), 12)),))
    yield Activation(name="soft_shrink", settings=(("threshold", round(_LARGE - high, 9)),))
    yield Activation(name="hard_shrink", settings=(("threshold", 0.5),))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, small) / (1 + small))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x))))


def _softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _log_softmax(x: np.ndarray) -> np.ndarray:
    moved = x - x.max(axis=-1, keepdims=True)
    return np.asarray(moved - np.log(np.exp(moved).sum(axis=-1, keepdims=True)))


def _gelu(x: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    if settings["approximate"]:
        return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * np.vectorize(math.erfc)(-x / math.sqrt(2)))


def _hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(x / 6 + 0.5, 0.0, 1.0)


def _elu(x: np.ndarray, alpha: float, scale: float = 1.0) -> np.ndarray:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0) / scale))


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

_PLAIN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "silu": lambda x: x * _sigmoid(x),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "selu": lambda x: _SELU_SCALE * _elu(x, _SELU_ALPHA),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": lambda x: x * _hard_sigmoid(x),
    "log_sigmoid": lambda x: -_softplus(-x),
    "tanh_shrink": lambda x: x - np.tanh(x),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "exponential": np.exp,
}


def _without_settings(formula: Callable[[np.ndarray], np.ndarray]) -> Formula:
    return lambda x, _: formula(x)


_FORMULAS: dict[str, Formula] = {
    **{name: _without_settings(formula) for name, formula in _PLAIN.items()},
    "gelu": _gelu,
    "leaky_relu": lambda x, s: np.where(x >= 0, x, s["negative_slope"] * x),
    "elu": lambda x, s: _elu(x, s["alpha"]),
    "celu": lambda x, s: _elu(x, s["alpha"], s["alpha"]),
    "clip": lambda x, s: np.clip(x, s["min"], s["max"]),
    "softplus": lambda x, s: _softplus(s["beta"] * x) / s["beta"],
    "soft_shrink": lambda x, s: np.sign(x) * np.maximum(np.abs(x) - s["threshold"], 0.0),
    "hard_shrink": lambda x, s: np.where(np.abs(x) > s["threshold"], x, 0.0),
    "threshold": lambda x, s: np.where(x > s["threshold"], x, s["value"]),
}
