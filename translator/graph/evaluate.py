"""Numpy meanings of the ops that appear in constant and shape arithmetic.

Arrays of dtype object hold symbolic integers, so that `Shape → Gather → Mul → Concat` is resolved with a dynamic
batch. Floats are computed in float64: a constant that PyTorch computes in double stays exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sympy

Evaluator = Callable[..., Any]
EVALUATORS: dict[str, Evaluator] = {}


class NotConstant(Exception):  # noqa: N818 - not an error: the value is computed when the model runs
    """The op can't be computed on these constants; the value stays in the graph."""


def evaluator(*ops: str) -> Callable[[Evaluator], Evaluator]:
    """Register a function (inputs…, **attributes) → array or tuple of arrays."""

    def register(function: Evaluator) -> Evaluator:
        for op in ops:
            EVALUATORS[op] = function
        return function

    return register


def integers(array: np.ndarray) -> list[Any]:
    """The elements of a 1-D array as ints or expressions."""
    return [_plain(v) for v in np.asarray(array).reshape(-1).tolist()]


def _plain(value: Any) -> Any:
    if isinstance(value, sympy.Basic) and value.is_Integer:
        return int(value)
    return value


def _tidy(value: Any) -> np.ndarray:
    """An object array without symbols left becomes int64."""
    array: np.ndarray = np.asarray(value)
    if array.dtype == object:
        flat = [_plain(v) for v in array.reshape(-1).tolist()]
        if all(isinstance(v, bool) for v in flat):
            return np.array(flat, dtype=bool).reshape(array.shape)
        if all(isinstance(v, int) for v in flat):
            return np.array(flat, dtype=np.int64).reshape(array.shape)
        out = np.empty(len(flat), dtype=object)
        out[:] = flat
        return out.reshape(array.shape)
    return array


def _known(array: np.ndarray) -> list[int]:
    values = integers(array)
    if not all(isinstance(v, int) for v in values):
        raise NotConstant
    return values


def run(op: str, inputs: list[np.ndarray | None], attributes: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """The outputs of one op on constants. Raises NotConstant where it can't be computed."""
    function = EVALUATORS.get(op)
    if function is None:
        return reference(op, inputs, attributes)
    try:
        result = function(*inputs, **attributes)
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise NotConstant from error
    return tuple(_tidy(r) for r in result) if isinstance(result, tuple | list) else (_tidy(result),)


_RANDOM = frozenset({
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial",
})  # fmt: skip
"""Drawn anew at every call: no constant, though nothing of the input is read."""


def reference(op: str, inputs: list[np.ndarray | None], attributes: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """The outputs of an op that has no function here, by ONNX' reference implementation."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    if op in _RANDOM or any(a is not None and a.dtype == object for a in inputs):
        raise NotConstant
    names = [f"i{i}" if a is not None else "" for i, a in enumerate(inputs)]
    try:
        node = helper.make_node(op, names, ["o0"], **attributes)
        fed = {name: a for name, a in zip(names, inputs, strict=True) if a is not None}
        return tuple(np.asarray(r) for r in ReferenceEvaluator(node).run(None, fed))
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise NotConstant from error


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Pow": lambda a, b: np.power(a, b),
    "Equal": lambda a, b: np.equal(a, b),
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
}
_UNARY: dict[str, Callable[[Any], Any]] = {
    "Identity": lambda a: a,
    "CastLike": lambda a: a,
    "Neg": lambda a: -a,
    "Log1p": np.log1p,
    "Expm1": np.expm1,
    "LogSigmoid": lambda a: -np.logaddexp(0.0, -a),
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Sin": np.sin,
    "Cos": np.cos,
    "Tanh": np.tanh,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.round,
    "Sign": np.sign,
    "Reciprocal": lambda a: 1.0 / a,
    "Not": np.logical_not,
    "Size": lambda a: np.array(a.size),
}
for _name, _function in _BINARY.items():
    EVALUATORS[_name] = lambda a, b, f=_function, **_: f(a, b)
for _name, _unary in _UNARY.items():
    EVALUATORS[_name] = lambda a, *_, f=_unary, **__: f(a)


@evaluator("Div")
def _div(a: Any, b: Any) -> Any:
    if a.dtype == object or b.dtype == object:
        return np.vectorize(
            lambda x, y: x // y if isinstance(x, int) and isinstance(y, int) else _exact_div(x, y), otypes=[object]
        )(a, b)
    if np.issubdtype(a.dtype, np.integer):
        return (np.sign(a) * np.sign(b)) * (np.abs(a) // np.abs(b))
    return a / b


def _exact_div(x: Any, y: Any) -> Any:
    quotient = sympy.cancel(sympy.sympify(x) / sympy.sympify(y))
    return quotient if quotient.as_numer_denom()[1] == 1 else sympy.floor(quotient)


@evaluator("Mod")
def _mod(a: Any, b: Any, fmod: int = 0) -> Any:
    if a.dtype == object or b.dtype == object:
        return np.vectorize(lambda x, y: sympy.Mod(x, y), otypes=[object])(a, b)
    return np.fmod(a, b) if fmod else np.mod(a, b)


@evaluator("Min")
def _min(*arrays: Any) -> Any:
    return _extreme(arrays, np.minimum, sympy.Min)


@evaluator("Max")
def _max(*arrays: Any) -> Any:
    return _extreme(arrays, np.maximum, sympy.Max)


def _extreme(arrays: tuple[Any, ...], numeric: Any, symbolic: Any) -> Any:
    out = arrays[0]
    for other in arrays[1:]:
        mixed = out.dtype == object or other.dtype == object
        out = np.vectorize(symbolic, otypes=[object])(out, other) if mixed else numeric(out, other)
    return out


@evaluator("Cast")
def _cast(a: Any, to: str = "float32", **_: Any) -> Any:
    if a.dtype == object and not to.startswith(("int", "uint")):
        raise NotConstant
    if a.dtype == object:
        return a
    if to.startswith(("float", "bfloat")):
        return a.astype(np.float64)
    if to.startswith(("int", "uint")) and np.issubdtype(a.dtype, np.floating):
        return np.trunc(a).astype(to)
    return a.astype(to)


@evaluator("Reshape")
def _reshape(a: Any, shape: Any, allowzero: int = 0) -> Any:
    dims = _known(shape)
    if not allowzero:
        dims = [a.shape[i] if d == 0 else d for i, d in enumerate(dims)]
    return a.reshape(dims)


@evaluator("Flatten")
def _flatten(a: Any, axis: int = 1) -> Any:
    return a.reshape(math.prod(a.shape[:axis]), -1)


@evaluator("Squeeze")
def _squeeze(a: Any, axes: Any = None) -> Any:
    return a.squeeze() if axes is None else a.squeeze(tuple(_known(axes)))


@evaluator("Unsqueeze")
def _unsqueeze(a: Any, axes: Any) -> Any:
    rank = a.ndim + np.asarray(axes).size
    return np.expand_dims(a, tuple(x % rank for x in _known(axes)))


@evaluator("Concat")
def _concat(*arrays: Any, axis: int) -> Any:
    return np.concatenate(arrays, axis=axis)


@evaluator("Transpose")
def _transpose(a: Any, perm: Any = None) -> Any:
    return np.transpose(a, perm)


@evaluator("Gather")
def _gather(a: Any, indices: Any, axis: int = 0) -> Any:
    return np.take(a, indices.astype(np.int64), axis=axis)


@evaluator("GatherElements")
def _gather_elements(a: Any, indices: Any, axis: int = 0) -> Any:
    return np.take_along_axis(a, indices, axis)


@evaluator("GatherND")
def _gather_nd(a: Any, indices: Any, batch_dims: int = 0) -> Any:
    if batch_dims:
        raise NotConstant
    return a[tuple(np.moveaxis(indices, -1, 0))]


@evaluator("ScatterND")
def _scatter_nd(a: Any, indices: Any, updates: Any, reduction: str = "none") -> Any:
    if reduction != "none":
        raise NotConstant
    out = a.copy()
    out[tuple(np.moveaxis(indices, -1, 0))] = updates
    return out


@evaluator("ScatterElements")
def _scatter_elements(a: Any, indices: Any, updates: Any, axis: int = 0, reduction: str = "none") -> Any:
    if reduction != "none":
        raise NotConstant
    out = a.copy()
    np.put_along_axis(out, indices, updates, axis)
    return out


@evaluator("Slice")
def _slice(a: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    begin, end = _known(starts), _known(ends)
    which = _known(axes) if axes is not None else list(range(len(begin)))
    stride = _known(steps) if steps is not None else [1] * len(begin)
    index: list[slice] = [slice(None)] * a.ndim
    for axis, b, e, s in zip(which, begin, end, stride, strict=True):
        index[axis] = slice(b, None if s < 0 and e < -a.shape[axis] else e, s)
    return a[tuple(index)]


@evaluator("Expand")
def _expand(a: Any, shape: Any) -> Any:
    dims = _known(shape)
    target = np.broadcast_shapes(a.shape, tuple(dims))
    if math.prod(target) > 1 << 24:
        raise NotConstant
    return np.broadcast_to(a, target).copy()


@evaluator("Tile")
def _tile(a: Any, repeats: Any) -> Any:
    return np.tile(a, _known(repeats))


@evaluator("Range")
def _range(start: Any, limit: Any, delta: Any) -> Any:
    values = [_plain(np.asarray(v).item()) for v in (start, limit, delta)]
    if any(isinstance(v, sympy.Basic) for v in values):
        raise NotConstant
    return np.arange(*values)


@evaluator("ConstantOfShape")
def _constant_of_shape(shape: Any, value: Any = None) -> Any:
    fill = np.zeros(1) if value is None else np.asarray(value)
    return np.full(_known(shape), fill.reshape(-1)[0], dtype=fill.dtype)


@evaluator("Where")
def _where(condition: Any, a: Any, b: Any) -> Any:
    if condition.dtype == object:
        raise NotConstant
    return np.where(condition, a, b)


@evaluator("CumSum")
def _cumsum(a: Any, axis: Any, exclusive: int = 0, reverse: int = 0) -> Any:
    if exclusive or reverse:
        raise NotConstant
    return np.cumsum(a, axis=int(axis))


@evaluator("Trilu")
def _trilu(a: Any, k: Any = None, upper: int = 1) -> Any:
    offset = 0 if k is None else int(k)
    return np.triu(a, offset) if upper else np.tril(a, offset)


@evaluator("Split")
def _split(a: Any, split: Any = None, axis: int = 0, num_outputs: int = 0) -> Any:
    if split is None:
        size = -(-a.shape[axis] // num_outputs)
        return tuple(np.split(a, range(size, a.shape[axis], size), axis=axis))
    return tuple(np.split(a, np.cumsum(_known(split))[:-1], axis=axis))


def _reduce(numeric: Any) -> Evaluator:
    def function(a: Any, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
        if axes is None and noop_with_empty_axes:
            return a
        chosen = tuple(_known(axes)) if axes is not None and np.asarray(axes).size else None
        return numeric(a, axis=chosen, keepdims=bool(keepdims))

    return function


for _name, _numeric in {
    "ReduceSum": np.sum,
    "ReduceProd": np.prod,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceMean": np.mean,
}.items():
    EVALUATORS[_name] = _reduce(_numeric)
