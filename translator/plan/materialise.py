"""Constants and free parameters as arguments: numbers, small arrays, or weights of an Embedding looked up at 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import sympy

from translator.bindings import Flip, Permute, Reshape, forward, inverse
from translator.errors import InternalError
from translator.graph.derive import Derived
from translator.graph.dims import SymDim
from translator.graph.evaluate import integers
from translator.graph.view import NodeView
from translator.plan.calls import Arg, Ref
from translator.types import Layout, Origin

if TYPE_CHECKING:
    from translator.plan.context import PlanContext

LARGE = 1_000
"""Constants of more elements go into non-trainable weights: in the config they would be JSON text."""


class Materialiser:
    """Makes an argument of a value that doesn't depend on the input. Free parameters are made once per layout."""

    def __init__(self, context: PlanContext) -> None:
        self._context = context
        self._made: dict[tuple[str, Layout], Ref] = {}

    def argument(self, node: NodeView, value: str, target: Layout, *, numbers: bool = True) -> Arg:
        """The value, laid out to broadcast against a tensor that lies as `target`; a single element as a number."""
        graph = self._context.graph
        if value in graph.derived:
            return self._weight(node, value, graph.derived[value], target)
        array = graph.constants.get(value)
        if array is None:
            raise InternalError(f"{node.key}: input {value} has neither a value nor a producer")
        if array.dtype == object:
            sizes = integers(array)
            if len(sizes) > 1:
                raise node.unsupported("dynamic sizes are used as numbers", reason="data-dependent-shape")
            size = counted(self._context, node, sizes[0])
            return self._context.op(node, "reshape", size, array.shape, role="size") if array.ndim else size
        if numbers and array.size == 1 and array.ndim <= len(target.axes):
            return array.reshape(()).item()
        exact = lay_out(array, target)
        array = plain(exact, self._context.dtype(value))
        rest = remainder(exact, array)
        if array.size > LARGE:
            return self._weight(node, value, array if rest is None else exact, target)
        return array if rest is None else self._in_two(node, (value, target), array, rest)

    def _in_two(self, node: NodeView, key: tuple[str, Layout], array: np.ndarray, rest: np.ndarray) -> Ref:
        """Numbers that float32 can't hold, as a sum of two that it can: exact where the model computes in float64."""
        context = self._context
        if key not in self._made:
            high = in_graph(context, node, array, role="high")
            self._made[key] = context.op(node, "add", high, rest, role="exact", main=False)
        return self._made[key]

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
    """A parameter laid out the same way, leading axes of size 1 added."""
    rank = len(target.axes)
    if len(source.shape) > rank or target.view is not None:
        return source
    return source.reshape((1,) * (rank - len(source.shape)) + source.shape).permute(target.axes)


def plain(array: np.ndarray, dtype: str) -> np.ndarray:
    """The array in the dtype that the Keras model computes with: float32, int32 where the numbers fit, bool."""
    if dtype.startswith(("float", "bfloat")) or array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind in "iu" and array.size and np.abs(array.astype(np.int64)).max() < 1 << 31:
        return array.astype(np.int32)
    return array


def held_exactly(array: np.ndarray, dtype: str) -> np.ndarray:
    """`plain`, but doubles that float32 can't hold stay as they are: `free_weight` makes two weights of them."""
    whole = plain(array, dtype)
    return whole if remainder(array, whole) is None else array


def remainder(exact: np.ndarray, held: np.ndarray) -> np.ndarray | None:
    """What float32 numbers leave out of the doubles that they stand for; None where they hold all that counts."""
    if exact.dtype != np.float64 or held.dtype != np.float32 or not np.isfinite(held).all():
        return None
    rest = exact - held.astype(np.float64)
    significant = np.abs(rest).max(initial=0.0) > 1e-13 * np.abs(exact).max(initial=0.0)
    return rest.astype(np.float32) if significant else None


def _halves(exact: np.ndarray) -> tuple[tuple[str, np.ndarray], ...]:
    high = exact.astype(np.float32)
    return ("high", high), ("low", (exact - high).astype(np.float32))


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    lead = next((i for i, d in enumerate(shape) if d != 1), len(shape))
    return shape[lead:]


def free_weight(context: PlanContext, node: NodeView, value: str, source: Derived | np.ndarray) -> Ref:
    """A weight of any shape as a native layer: `Embedding(1, n)` looked up at an index made from the model's input.

    Gives a value of `source.shape`, by a reshape also where that is (1, n): Keras takes the 1 for a batch's size.
    Whole numbers and truth values are held as float32 and cast back. Measured: saved, loaded, differentiated and
    exported on all backends.
    """
    size = int(np.prod(source.shape, dtype=np.int64))
    if not size:
        raise node.unsupported("a tensor without elements", reason="attribute")
    if isinstance(source, np.ndarray) and source.dtype == np.float64:
        high, low = (free_weight(context, node, f"{value}.{part}", held) for part, held in _halves(source))
        return context.op(node, "add", high, low, role="exact", main=False)
    name = source.tensor if isinstance(source, Derived) else context.graph.baked.get(value, value)
    node = owned(node, name, context)
    short = name.rsplit(".", 1)[-1]
    if isinstance(source, Derived):
        known = context.held.get(source.pieces)
        if known is not None:
            return _seen_otherwise(context, node, known[0], known[1], source, short)
        if context.sharing.looked_up(source):
            whole = replace(source, steps=(), shape=source.joined_shape)
            rows = table(context, node, name, whole, np.arange(whole.shape[0]))
            context.held[source.pieces] = (rows, whole)
            return _seen_otherwise(context, node, rows, whole, source, short)
    row = _embedding(context, node, name, 1, source.reshape((1, size)), zero_index(context, node))
    if isinstance(source, Derived):
        context.held[source.pieces] = (row, source)
    elif source.dtype.kind != "f":
        row = context.op(node, "cast", row, source.dtype.name, role=f"{short}_cast", main=False)
    return context.op(node, "reshape", row, source.shape, role=f"{short}_shape", main=False)


def _shaped(
    context: PlanContext, node: NodeView, x: Ref, have: tuple[int, ...], want: tuple[int, ...], short: str
) -> Ref:
    return x if have == want else context.op(node, "reshape", x, want, role=f"{short}_shape", main=False)


def _seen_otherwise(context: PlanContext, node: NodeView, row: Ref, first: Derived, source: Derived, short: str) -> Ref:
    """A weight that is in the model already, with its numbers in the order of `first`, in the order of `source`."""
    size = int(np.prod(source.shape, dtype=np.int64))
    if np.array_equal(_places(first), _places(source)):
        return context.op(node, "reshape", row, source.shape, role=f"{short}_shape", main=False)
    x, shape = _shaped(context, node, row, (1, size), first.shape, short), first.shape
    for step in (*map(inverse, reversed(first.steps)), *source.steps):
        match step:
            case Permute(axes=axes):
                x, shape = context.op(node, "transpose", x, axes, role=f"{short}_order"), tuple(shape[a] for a in axes)
            case Reshape(after=after):
                x, shape = _shaped(context, node, x, shape, after, short), after
            case Flip(axes=axes):
                x = context.op(node, "flip", x, axis=axes, role=f"{short}_flip")
    return x


def _places(source: Derived) -> np.ndarray:
    """Where each number of the joined pieces ends up, flattened."""
    size = int(np.prod(source.shape, dtype=np.int64))
    places = np.arange(size).reshape(source.joined_shape)
    for step in source.steps:
        places = forward(step, places)
    return places.reshape(-1)


def held(context: PlanContext, node: NodeView, name: str, array: np.ndarray) -> Arg:
    """A constant of our own as an argument: itself where it is small, else a non-trainable weight."""
    if array.size <= LARGE:
        return array
    owner = f"{node.origin.module}.{name}" if node.origin.module else name
    return free_weight(context, node, owner, array)


def repeated_weight(context: PlanContext, node: NodeView, value: str, source: Derived | np.ndarray, dim: SymDim) -> Ref:
    """A weight of shape (1, …) repeated along the dynamic dimension `dim`, in front: a class token for each sample."""
    if isinstance(source, np.ndarray) and source.dtype == np.float64:
        high, low = (repeated_weight(context, node, f"{value}.{part}", held, dim) for part, held in _halves(source))
        return context.op(node, "add", high, low, role="exact", main=False)
    size = int(np.prod(source.shape, dtype=np.int64))
    name = source.tensor if isinstance(source, Derived) else context.graph.baked.get(value, value)
    index = context.op(node, "cast", zeros(context, node, dim), "int32", role="index", main=False)
    if isinstance(source, Derived) and context.sharing.how(source) == "free":
        return context.op(node, "take", free_weight(context, node, value, source), index, axis=0)
    if isinstance(source, np.ndarray) and source.dtype.kind != "f":
        rows = _embedding(context, node, name, 1, source.reshape((1, size)), index)
        rows = context.op(node, "cast", rows, context.dtype(value), role="whole", main=False)
        return _shaped(context, node, rows, (1, size), (-1, *source.shape[1:]), name.rsplit(".", 1)[-1])
    if len(source.shape) == 3 and source.shape[1] == 1:
        index = context.op(node, "expand_dims", index, -1, role="index", main=False)
        return _embedding(context, node, name, 1, source.reshape((1, size)), index)
    rows = _embedding(context, node, name, 1, source.reshape((1, size)), index)
    if len(source.shape) == 2:
        return rows
    role = f"{name.rsplit('.', 1)[-1]}_shape"
    return context.op(node, "reshape", rows, (-1, *source.shape[1:]), role=role, main=False)


def table(context: PlanContext, node: NodeView, name: str, source: Derived | np.ndarray, index: Arg) -> Ref:
    """An Embedding that holds a (rows, width) table, looked up at `index`: a `Ref`, or an array of constant indices."""
    if isinstance(index, np.ndarray):
        index = constant_index(context, node, index)
    return _embedding(context, node, name, source.shape[0], source, index)


def constant_index(context: PlanContext, node: NodeView, index: np.ndarray) -> Ref:
    """Constant indices as a value of the graph."""
    index = index.astype(np.int32)
    if index.size > LARGE:
        return free_weight(context, node, f"{node.origin.module}.index" if node.origin.module else "index", index)
    zero = zero_index(context, node)
    return context.op(node, "add", zero, index, role="index", main=False)


def _embedding(
    context: PlanContext, node: NodeView, name: str, rows: int, source: Derived | np.ndarray, index: Arg
) -> Ref:
    config: dict[str, object] = {"input_dim": rows, "output_dim": source.shape[-1]}
    if not (isinstance(source, Derived) and source.trainable):
        config["trainable"] = False
    return context.weight_layer(node, name, "Embedding", config, {"embeddings": source}, (index,))


def owned(node: NodeView, tensor: str, context: PlanContext) -> NodeView:
    """The node as if it stood in the module that holds the tensor, so that names tell where a weight belongs."""
    module = tensor.rpartition(".")[0]
    if module == node.origin.module or all(module != path for path, _, _ in node.origin.scopes):
        return node
    depth = next(i for i, (path, _, _) in enumerate(node.origin.scopes) if path == module)
    scopes = node.origin.scopes[: depth + 1]
    return replace(node, origin=replace(node.origin, module=module, scopes=scopes, cls=scopes[-1][2]))


def zero_index(context: PlanContext, node: NodeView) -> Ref:
    """An int32 zero of shape (1,), made once from the model's first input so that it belongs to the graph."""
    found = context.once.get("zero_index")
    if not context.graph.inputs:
        raise node.unsupported("a model without inputs", reason="attribute")
    if found is None:
        root = replace(node, origin=Origin())
        name = context.graph.inputs[0]
        key = (slice(None, 1), *([0] * (context.rank(name) - 1)))
        first = context.op(root, "get_item", Ref(context.values[name].value), key, role="zero_of_input", main=False)
        number = context.op(root, "zeros_like", first, role="zero", main=False)
        found = context.once["zero_index"] = context.op(root, "cast", number, "int32", role="zero_index", main=False)
    return found


def zeros(context: PlanContext, node: NodeView, dim: SymDim) -> Ref:
    """Zeros of shape (dim,), made from a value that has this dynamic dimension: one of the inputs, if any has it."""
    found = context.once.get(f"zeros {dim}")
    if found is not None:
        return found
    names = [*context.graph.inputs, *(v for v in context.values if v not in context.graph.inputs)]
    for name in names:
        shape: Sequence[SymDim] = context.graph.shapes.get(name, ())
        axis = next((i for i, d in enumerate(shape) if d == dim), None)
        layout = context.assignment.layouts[name]
        if axis is None or layout.view is not None:
            continue
        from_input = name in context.graph.inputs
        root = replace(node, origin=Origin()) if from_input else node
        key = tuple(slice(None) if a == axis else 0 for a in layout.axes)
        line = context.op(root, "get_item", context.values[name], key, role="line_of_input", main=False)
        made: Ref = context.op(root, "zeros_like", line, role="zeros", main=False)
        if from_input:
            context.once[f"zeros {dim}"] = made
        return made
    return _zeros_of_parts(context, node, dim)


def _zeros_of_parts(context: PlanContext, node: NodeView, dim: SymDim) -> Ref:
    """Zeros of a size that no value has, from those of its factors or terms: of 3·B, B·T, B + 2."""
    number = next((int(part) for part in dim.args if part.is_Integer), None)
    parts = [part for part in dim.args if not part.is_Integer]
    if not parts or not (dim.is_Mul or dim.is_Add) or (dim.is_Mul and number is not None and number < 0):
        raise node.unsupported(f"no value has the dynamic size {dim}", reason="data-dependent-shape")
    made, *others = (zeros(context, node, part) for part in parts)
    for other in others:
        if dim.is_Mul:
            column = context.op(node, "expand_dims", other, -1, role="column", main=False)
            made = context.op(
                node, "reshape", context.op(node, "subtract", made, column), (-1,), role="zeros", main=False
            )
        else:
            made = context.op(node, "concatenate", [made, other], role="zeros", main=False)
    if number is None:
        return made
    if dim.is_Mul:
        return context.op(node, "tile", made, number, role="zeros", main=False)
    if number > 0:
        return context.op(node, "pad", made, [[0, number]], role="zeros", main=False)
    return context.op(node, "get_item", made, (slice(-number, None),), role="zeros", main=False)


def counted(context: PlanContext, node: NodeView, dim: SymDim) -> Ref:
    """A dynamic size as a whole number, shape (): ones along that axis are added up; what is computed of such sizes."""
    key = f"size {dim}"
    if key in context.once:
        return context.once[key]
    if dim.is_Symbol:
        ones = context.op(node, "ones_like", zeros(context, node, dim), role="each", main=False)
        made = context.op(node, "cast", context.op(node, "sum", ones, role="count", main=False), "int32", role="size")
    elif dim.is_Add or dim.is_Mul:
        numbers = [part for part in dim.args if part.is_Integer]
        made, *rest = (counted(context, node, part) for part in dim.args if not part.is_Integer)
        for part in (*rest, *map(int, numbers)):
            made = context.op(node, "add" if dim.is_Add else "multiply", made, part, role="size", main=False)
    elif isinstance(dim, sympy.floor):
        whole, part = dim.args[0].as_numer_denom()
        divisor = int(part) if part.is_Integer else counted(context, node, part)
        made = context.op(node, "floor_divide", counted(context, node, whole), divisor, role="size")
    else:
        raise node.unsupported(f"the size {dim} is used as a number", reason="data-dependent-shape")
    context.once[key] = made
    return made


def zero_float(context: PlanContext, node: NodeView) -> Ref:
    """A zero of shape (1,) in the model's own floats, made once."""
    found = context.once.get("zero_float")
    if found is None:
        root = replace(node, origin=Origin())
        zero = zero_index(context, node)
        found = context.once["zero_float"] = context.op(root, "cast", zero, "float32", role="zero", main=False)
    return found


def in_graph(context: PlanContext, node: NodeView, arg: Arg, *, role: str = "in_graph") -> Arg:
    """A constant array as a value of the graph, in the model's own floats: not every function of keras.ops promotes.

    Keras takes a last axis of size 1 for unknown, since the zero that is added comes from the batch: a reshape says it.
    """
    if not isinstance(arg, np.ndarray):
        return arg
    made = context.op(node, "add", zero_float(context, node), arg, role=role, main=False)
    if arg.shape[-1:] != (1,):
        return made
    return context.op(node, "reshape", made, arg.shape, role=f"{role}_shape", main=False)
