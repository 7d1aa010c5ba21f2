"""Operations of a traced program in the words in which PyTorch's decomposition has them.

In-place operations become functions where no other value that is read later lies in the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from operator import getitem
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, Node
from torch.multiprocessing.reductions import StorageWeakRef

aten = torch.ops.aten

Rewrite = Callable[[], object]


class Values:
    """What is known of a graph's values before anything is changed: places, memories, sizes."""

    def __init__(self, graph: Graph) -> None:
        self.places = {node: place for place, node in enumerate(graph.nodes)}
        self.sharing: dict[int, list[Node]] = {}
        self._sizes: dict[str, Node] = {}
        self._axes: dict[str, tuple[Node, int]] = {}
        for node in graph.nodes:
            for memory in memories(node):
                self.sharing.setdefault(memory, []).append(node)
            value = node.meta.get("val")
            if isinstance(value, torch.SymInt):
                self._sizes.setdefault(str(value), node)
            elif node.op == "placeholder" and isinstance(value, Tensor):
                for axis, size in enumerate(value.shape):
                    self._axes.setdefault(str(size), (node, axis))

    def has(self, size: int | torch.SymInt) -> bool:
        """Whether the size is a number, or that of an axis of an input."""
        return isinstance(size, int) or str(size) in self._axes

    def size(self, size: int | torch.SymInt, before: Node) -> int | Node:
        """A size that `has` knows, as an argument of a later node: the number, or a node that reads it."""
        if isinstance(size, int):
            return size
        found = self._sizes.get(str(size))
        if found is None or not found < before:
            given, axis = self._axes[str(size)]
            last = [node for node in given.graph.nodes if node.op == "placeholder"][-1]
            with given.graph.inserting_after(last):
                found = given.graph.call_function(aten.sym_size.int, (given, axis))
            found.meta = {"val": size}
            self._sizes[str(size)] = found
        return found


def memories(node: Node) -> set[int]:
    """The memories that a node's tensors lie in: views have their base's."""
    leaves = torch.utils._pytree.tree_leaves(node.meta.get("val"))
    storages = (leaf.untyped_storage() for leaf in leaves if isinstance(leaf, Tensor))
    return {StorageWeakRef(storage).cdata for storage in storages}  # type: ignore[no-untyped-call]


def function_of(node: Node, values: Values) -> OpOverload | None:
    """The function that an operation in place computes, or None where it does more.

    It does no more if the memory it writes is none of an input or a weight, and is read later as its result alone.
    """
    function = _namesake(node.target)
    written = node.args[0] if node.args else None
    if function is None or not isinstance(written, Node) or not _of_one_type(node):
        return None
    memory = memories(node)
    if len(memory) != 1 or memory != memories(written):
        return None
    here = values.places[node]
    for other in values.sharing[memory.pop()]:
        is_older = values.places[other] < here
        if other.op != "call_function" or (is_older and any(values.places[user] > here for user in other.users)):
            return None
    return function


def _namesake(target: Any) -> OpOverload | None:
    """aten.relu for aten.relu_: the operation with the same arguments that changes none of them."""
    namespace, _, name = target._schema.name.partition("::")
    if namespace != "aten" or not name.endswith("_"):
        return None
    packet = getattr(aten, name.removesuffix("_"), None)
    function = getattr(packet, target._overloadname, None)
    if not isinstance(function, OpOverload) or function._schema.is_mutable:
        return None
    arguments = [[(a.name, str(a.type)) for a in f._schema.arguments] for f in (target, function)]
    return function if arguments[0] == arguments[1] else None


def _of_one_type(node: Node) -> bool:
    """Whether the result has the type of all tensors read, so that none is converted as it is written."""
    read = (n.meta.get("val") for n in (node, *node.all_input_nodes))
    return len({t.dtype for t in read if isinstance(t, Tensor)}) == 1


def _batch_norm(node: Node, values: Values) -> Rewrite | None:
    if len(node.args) != len(node.target._schema.arguments):  # type: ignore[union-attr]
        return None
    *_, mean, variance, training, momentum, eps, _ = node.args
    if training is not False or not isinstance(mean, Node) or not isinstance(variance, Node):
        return None
    return partial(_write_batch_norm, node, (*node.args[:5], momentum, eps))


def _write_batch_norm(node: Node, args: tuple[Any, ...]) -> None:
    value = node.meta["val"]
    with node.graph.inserting_before(node):
        norm = node.graph.call_function(aten._native_batch_norm_legit_no_training.default, args)
    norm.meta = {**node.meta, "val": (value, value.new_empty(0), value.new_empty(0))}
    node.target = getitem
    node.args = (norm, 0)


def _flatten(node: Node, values: Values) -> Rewrite | None:
    x, shape = node.args[0], node.meta["val"].shape
    assert isinstance(x, Node)
    if len(shape) == len(x.meta["val"].shape):
        return partial(_leave_out, node, x)
    return partial(_write_flatten, node, values) if all(map(values.has, shape)) else None


def _write_flatten(node: Node, values: Values) -> None:
    _write_view(node, [values.size(size, node) for size in node.meta["val"].shape])


def _reshape(node: Node, values: Values) -> Rewrite:
    return partial(_write_view, node, node.args[1])


def _write_view(node: Node, sizes: Any) -> None:
    """A view, or a copy where PyTorch's trace made one."""
    x = node.args[0]
    assert isinstance(x, Node)
    node.target = aten.view.default
    if not memories(node) <= memories(x):
        with node.graph.inserting_before(node):
            copy = node.graph.call_function(aten.clone.default, (x,), {"memory_format": torch.contiguous_format})
        copy.meta = {**node.meta, "val": x.meta["val"]}
        x, node.target = copy, aten._unsafe_view.default
    node.args = (x, sizes)


def _contiguous(node: Node, values: Values) -> Rewrite:
    x = node.args[0]
    assert isinstance(x, Node)
    return partial(_leave_out, node, x) if memories(node) <= memories(x) else partial(_write_copy, node)


def _leave_out(node: Node, x: Node) -> None:
    """Let `x` stand for `node`; an output of the program keeps its name, and is a copy."""
    if any(user.op == "output" for user in node.users):
        node.args = (x,)
        _write_copy(node)
    else:
        node.replace_all_uses_with(x)


def _write_copy(node: Node) -> None:
    node.target = aten.clone.default
    node.kwargs = {"memory_format": torch.contiguous_format, **node.kwargs}


def _chunk(node: Node, values: Values) -> Rewrite | None:
    args: tuple[Any, ...] = (*node.args, 0)
    x, chunks, axis = args[:3]
    size = x.meta["val"].shape[axis]
    if not isinstance(size, int) or size == 0:
        return None
    return partial(_write_split, node, (x, -(-size // chunks), axis))


def _write_split(node: Node, args: tuple[Any, ...]) -> None:
    node.target, node.args = aten.split.Tensor, args


REWRITES: Mapping[OpOverload, Callable[[Node, Values], Rewrite | None]] = {
    aten.batch_norm.default: _batch_norm,
    aten.flatten.using_ints: _flatten,
    aten.reshape.default: _reshape,
    aten.contiguous.default: _contiguous,
    aten.chunk.default: _chunk,
}
"""By operation: what writes it in PyTorch's other words, or None where it can't be told before running it."""
