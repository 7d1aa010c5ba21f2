"""How a parameter stays a parameter through the ops the exporter puts between it and its use.

A function per op: (node, builder) → the `Derived` result, or None where the tie to the PyTorch tensor can't be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from translator.graph import derive
from translator.graph.derive import Derived
from translator.graph.evaluate import integers
from translator.graph.shapes import resolved
from translator.graph.view import NodeView


class Known(Protocol):
    """What is known so far: constants and derived parameters by value name."""

    @property
    def constants(self) -> Mapping[str, np.ndarray]:
        """Values known before any input is."""

    @property
    def derived(self) -> Mapping[str, Derived]:
        """Values that are a parameter after invertible steps."""


DeriveRule = Callable[[NodeView, Known], "Derived | tuple[Derived, ...] | None"]


def _known(builder: Known, value: str) -> list[int] | None:
    if value not in builder.constants:
        return None
    values = integers(builder.constants[value])
    return values if all(isinstance(v, int) for v in values) else None


def _d_same(view: NodeView, b: Known) -> Derived | None:
    target = view.attr("to", "float32") if view.op == "Cast" else "float32"
    return b.derived.get(view.inputs[0]) if target.startswith("float") else None


def _d_transpose(view: NodeView, b: Known) -> Derived | None:
    source = b.derived[view.inputs[0]]
    return source.permute(view.attr("perm") or tuple(reversed(range(len(source.shape)))))


def _d_reshape(view: NodeView, b: Known) -> Derived | None:
    source = b.derived.get(view.inputs[0])
    dims = _known(b, view.inputs[1])
    if source is None or dims is None:
        return None
    shape = resolved(list(dims), source.shape)
    return source.reshape(shape)


def _d_unsqueeze(view: NodeView, b: Known) -> Derived | None:
    source, axes = b.derived.get(view.inputs[0]), _known(b, view.inputs[1])
    if source is None or axes is None:
        return None
    return source.reshape(np.expand_dims(np.empty(source.shape, dtype=bool), tuple(axes)).shape)


def _d_squeeze(view: NodeView, b: Known) -> Derived | None:
    source = b.derived[view.inputs[0]]
    axes = _known(b, view.inputs[1]) if len(view.inputs) > 1 else [i for i, d in enumerate(source.shape) if d == 1]
    if axes is None:
        return None
    drop = {a % len(source.shape) for a in axes}
    return source.reshape([d for i, d in enumerate(source.shape) if i not in drop])


def _d_slice(view: NodeView, b: Known) -> Derived | None:
    source = b.derived.get(view.inputs[0])
    operands = [_known(b, i) for i in view.inputs[1:]]
    if source is None or any(o is None for o in operands):
        return None
    starts, ends = operands[0] or [], operands[1] or []
    axes = operands[2] if len(operands) > 2 else list(range(len(starts)))
    if len(operands) > 3 and any(s != 1 for s in operands[3] or []):
        return None
    first, last = [0] * len(source.shape), list(source.shape)
    for axis, start, end in zip(axes or [], starts, ends, strict=True):
        first[axis], last[axis], _ = slice(start, end).indices(source.shape[axis])
    return source.slice(first, last)


def _d_concat(view: NodeView, b: Known) -> Derived | None:
    if not all(i in b.derived for i in view.inputs):
        return None
    return derive.concat([b.derived[i] for i in view.inputs], view.attr("axis", 0))


def _d_split(view: NodeView, b: Known) -> tuple[Derived, ...] | None:
    source = b.derived.get(view.inputs[0])
    sizes = _known(b, view.inputs[1]) if view.has(1) else None
    if source is None or (view.has(1) and sizes is None):
        return None
    axis = view.attr("axis", 0) % len(source.shape)
    if sizes is None:
        each = -(-source.shape[axis] // len(view.outputs))
        sizes = [min(each, source.shape[axis] - i * each) for i in range(len(view.outputs))]
    parts, start = [], 0
    for size in sizes:
        first, last = [0] * len(source.shape), list(source.shape)
        first[axis], last[axis] = start, start + size
        part = source.slice(first, last)
        if part is None:
            return None
        parts.append(part)
        start += size
    return tuple(parts)


def _d_gather(view: NodeView, b: Known) -> Derived | None:
    """A scalar index into a parameter is a slice of length 1, squeezed."""
    source, index = b.derived.get(view.inputs[0]), b.constants.get(view.inputs[1])
    if source is None or index is None or index.ndim or index.dtype == object:
        return None
    axis, place = view.attr("axis", 0) % len(source.shape), int(index)
    first, last = [0] * len(source.shape), list(source.shape)
    first[axis] = place % source.shape[axis]
    last[axis] = first[axis] + 1
    part = source.slice(first, last)
    return None if part is None else part.reshape([d for i, d in enumerate(part.shape) if i != axis])


def _d_expand(view: NodeView, b: Known) -> Derived | None:
    source, dims = b.derived.get(view.inputs[0]), _known(b, view.inputs[1])
    if source is None or dims is None:
        return None
    rank = max(len(dims), len(source.shape))
    target = np.broadcast_shapes(source.shape, tuple(dims))
    padded = (1,) * (rank - len(source.shape)) + source.shape
    return source.reshape(target) if target == padded else None


DERIVATIONS: dict[str, DeriveRule] = {
    "Identity": _d_same,
    "Cast": _d_same,
    "CastLike": _d_same,
    "Transpose": _d_transpose,
    "Reshape": _d_reshape,
    "Unsqueeze": _d_unsqueeze,
    "Squeeze": _d_squeeze,
    "Slice": _d_slice,
    "Concat": _d_concat,
    "Split": _d_split,
    "Gather": _d_gather,
    "Expand": _d_expand,
}
