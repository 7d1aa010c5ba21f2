"""Constants and free parameters as arguments: numbers, small arrays, or weights of an Embedding looked up at index 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from translator.errors import InternalError
from translator.graph.derive import Derived
from translator.graph.evaluate import integers
from translator.graph.view import NodeView
from translator.plan.calls import Arg, Ref
from translator.types import Layout

if TYPE_CHECKING:
    from translator.plan.context import PlanContext

LARGE = 1_000
"""Constants of more elements go into non-trainable weights: in the config they would be JSON text."""


class Materialiser:
    """Makes an argument of a value that doesn't depend on the input. Free parameters are made once per layout."""

    def __init__(self, context: PlanContext) -> None:
        self._context = context
        self._made: dict[tuple[str, Layout], Ref] = {}

    def argument(self, node: NodeView, value: str, target: Layout) -> Arg:
        """The value, laid out to broadcast against a tensor that lies as `target`."""
        graph = self._context.graph
        if value in graph.derived:
            return self._weight(node, value, graph.derived[value], target)
        array = graph.constants.get(value)
        if array is None:
            raise InternalError(f"{node.key}: input {value} has neither a value nor a producer")
        if array.dtype == object:
            integers(array)
            raise node.unsupported("a dynamic size is used as a number", reason="data-dependent-shape")
        dtype = self._context.dtype(value)
        if array.size == 1 and array.ndim <= len(target.axes):
            return array.reshape(()).item()
        array = lay_out(array, target).astype(_numpy(dtype))
        if array.size > LARGE:
            return self._weight(node, value, array, target)
        return array

    def _weight(self, node: NodeView, value: str, source: Derived | np.ndarray, target: Layout) -> Ref:
        key = (value, target)
        if key in self._made:
            return self._made[key]
        shaped = source if isinstance(source, np.ndarray) else derived_like(source, target)
        made = free_weight(self._context, node, value, shaped)
        self._made[key] = made
        return made


def lay_out(array: np.ndarray, target: Layout) -> np.ndarray:
    """`array` as it broadcasts, in PyTorch's order, against a tensor of `target`'s rank, then laid out like it."""
    rank = len(target.axes)
    if array.ndim > rank or target.view is not None:
        return array
    full = array.reshape((1,) * (rank - array.ndim) + array.shape)
    moved = np.transpose(full, target.axes)
    return moved.reshape(_trimmed(moved.shape)) if array.ndim < rank else moved


def derived_like(source: Derived, target: Layout) -> Derived:
    """A parameter laid out the same way, leading axes of size 1 dropped."""
    rank = len(target.axes)
    if len(source.shape) > rank or target.view is not None:
        return source
    full = source.reshape((1,) * (rank - len(source.shape)) + source.shape).permute(target.axes)
    return full


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    lead = next((i for i, d in enumerate(shape) if d != 1), len(shape))
    return shape[lead:]


def _numpy(dtype: str) -> str:
    return "float32" if dtype.startswith(("float", "bfloat")) else dtype


def free_weight(context: PlanContext, node: NodeView, value: str, source: Derived | np.ndarray) -> Ref:
    """A weight of any shape as a native layer: `Embedding(1, n)` looked up at an index made from the model's input.

    Gives a value of `source.shape`. Measured: saved, loaded, differentiated and exported on all backends.
    """
    shape = source.shape
    size = int(np.prod(shape, dtype=np.int64))
    zero = context.zero_index(node)
    flat = source.reshape((1, size))
    name = source.tensor if isinstance(source, Derived) else value
    config = {"input_dim": 1, "output_dim": size}
    if not (isinstance(source, Derived) and source.trainable):
        config["trainable"] = False
    row = context.weight_layer(node, name, "Embedding", config, {"embeddings": flat}, (zero,))
    return context.op(node, "reshape", row, shape, role=f"{name.rsplit('.', 1)[-1]}_shape", main=False)  # type: ignore[no-any-return]
