"""Chains of reshapes and transposes.

Given:   Reshape(17, 12·N, 64) → Transpose(12·N, 17, 64) → Reshape(N, 12, 17, 64)   of x (17, N, 768)
Result:  Reshape(17, N, 12, 64) → Transpose(N, 12, 17, 64)

Every dimension is cut into factors; a chain only ever moves them, so that what it does as a whole is one cut, one order
and one joining of them: at most Reshape → Transpose → Reshape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from translator.graph.dims import SymDim, SymShape, ratio
from translator.graph.edit import Edit
from translator.graph.shapes import product
from translator.graph.view import Graph, NodeView

VIEWS = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze")


def fuse_views(graph: Graph) -> Graph:
    """Every chain of views that a shorter one equals becomes that one."""
    edit = Edit(graph)
    for node in graph.nodes:
        if _is_view(node, graph) and not _goes_on(node, edit):
            chain = _chain(node, edit)
            steps = _shorter(chain, graph) if len(chain) > 1 else None
            if steps is not None:
                edit.put(chain, _nodes(chain, steps, edit))
    return edit.done


def _is_view(node: NodeView, graph: Graph) -> bool:
    return node.key in VIEWS and graph.is_runtime(node.inputs[0]) and node.outputs[0] in graph.shapes


def _goes_on(node: NodeView, edit: Edit) -> bool:
    value = node.outputs[0]
    return edit.private(value) and _is_view(edit.readers(value)[0], edit.graph)


def _chain(last: NodeView, edit: Edit) -> list[NodeView]:
    chain = [last]
    while True:
        before = edit.producer(chain[0].inputs[0])
        if before is None or not _is_view(before, edit.graph) or not edit.private(before.outputs[0]):
            return chain
        chain.insert(0, before)


@dataclass(slots=True)
class Factors:
    """The factors of a tensor's dimensions. order: all of them as the source has them. axes: those of each axis now."""

    sizes: list[SymDim] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    axes: list[list[int]] = field(default_factory=list)

    @staticmethod
    def of(shape: SymShape) -> Factors:
        """One factor for each dimension, none for those of size 1."""
        factors = Factors()
        for dim in shape:
            factors.axes.append([] if dim == 1 else [factors._new(dim)])
        factors.order = [f for axis in factors.axes for f in axis]
        return factors

    def _new(self, size: SymDim) -> int:
        self.sizes.append(size)
        return len(self.sizes) - 1

    def reshape(self, shape: SymShape) -> bool:
        """Group the factors anew, cutting some in two; False where the dimensions don't line up."""
        rest = [f for axis in self.axes for f in axis]
        axes: list[list[int]] = []
        for dim in shape:
            axes.append([])
            missing: SymDim = dim
            while missing != 1:
                if not rest:
                    return False
                size = self.sizes[rest[0]]
                left = ratio(missing, size)
                if left is None:
                    if not self._cut(rest, missing):
                        return False
                    left = 1
                axes[-1].append(rest.pop(0))
                missing = left
        self.axes = axes
        return not rest

    def _cut(self, rest: list[int], first: SymDim) -> bool:
        """Cut the next factor into `first` and what remains."""
        factor = rest[0]
        other = ratio(self.sizes[factor], first)
        if other is None:
            return False
        second = self._new(other)
        self.sizes[factor] = first
        rest.insert(1, second)
        self.order.insert(self.order.index(factor) + 1, second)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """At most a reshape to `cut`, a transpose by `perm`, and a reshape to `shape`; None where one isn't needed."""

    cut: SymShape | None
    perm: tuple[int, ...] | None
    joined: bool
    shape: SymShape

    @property
    def count(self) -> int:
        """How many nodes that is."""
        return (self.cut is not None) + (self.perm is not None) + self.joined


def _shorter(chain: Sequence[NodeView], graph: Graph) -> Steps | None:
    source, target = graph.shapes[chain[0].inputs[0]], graph.shapes[chain[-1].outputs[0]]
    factors = Factors.of(source)
    for node in chain:
        if not _apply(node, factors, graph):
            return None
    options = [_steps(factors, source, target, merge=merge) for merge in (False, True)]
    best = min(options, key=lambda s: s.count)
    return best if best.count < len(chain) else None


def _apply(node: NodeView, factors: Factors, graph: Graph) -> bool:
    if node.op == "Transpose":
        perm = node.attr("perm") or tuple(reversed(range(len(factors.axes))))
        factors.axes = [factors.axes[a] for a in perm]
        return True
    return factors.reshape(graph.shapes[node.outputs[0]])


def _steps(factors: Factors, source: SymShape, target: SymShape, *, merge: bool) -> Steps:
    """The steps with every factor on its own, or with those that stay together all the way merged."""
    order, wanted = factors.order, [f for axis in factors.axes for f in axis]
    if order == wanted:
        return Steps(cut=None, perm=None, joined=source != target, shape=target)
    blocks: list[list[int]] = []
    for factor in order:
        last = blocks[-1][-1] if blocks else -1
        follows = bool(blocks) and wanted.index(factor) == wanted.index(last) + 1
        if follows and (merge or _one_axis(last, factor, factors, source)):
            blocks[-1].append(factor)
        else:
            blocks.append([factor])
    sizes = [product([factors.sizes[f] for f in block]) for block in blocks]
    places = sorted(range(len(blocks)), key=lambda i: wanted.index(blocks[i][0]))
    cut = tuple(sizes)
    moved = tuple(sizes[i] for i in places)
    return Steps(cut=cut if cut != source else None, perm=tuple(places), joined=moved != target, shape=target)


def _one_axis(a: int, b: int, factors: Factors, source: SymShape) -> bool:
    """Whether two neighbouring factors belong to one axis of the source and to one axis of the result."""
    owner: dict[int, int] = {}
    place = 0
    for axis, dim in enumerate(source):
        total: SymDim = 1
        while total != dim:
            owner[factors.order[place]] = axis
            total = total * factors.sizes[factors.order[place]]
            place += 1
    return owner[a] == owner[b] and any(a in axis and b in axis for axis in factors.axes)


def _nodes(chain: Sequence[NodeView], steps: Steps, edit: Edit) -> list[NodeView]:
    last, value = chain[-1], chain[0].inputs[0]
    out = last.outputs[0]
    plain = replace(last, domain="", attributes={})
    if not steps.count:
        return [replace(plain, op="Identity", inputs=(value,), outputs=(out,))]
    nodes: list[NodeView] = []
    if steps.cut is not None:
        name = edit.value(f"{out}:cut", steps.cut, value)
        nodes.append(
            replace(plain, op="Reshape", inputs=(value, _target(edit, f"{out}:cut_shape", steps.cut)), outputs=(name,))
        )
        value = name
    if steps.perm is not None:
        shape = steps.cut or edit.graph.shapes[chain[0].inputs[0]]
        name = out if not steps.joined else edit.value(f"{out}:moved", tuple(shape[a] for a in steps.perm), value)
        nodes.append(replace(plain, op="Transpose", inputs=(value,), outputs=(name,), attributes={"perm": steps.perm}))
        value = name
    if steps.joined:
        inputs = (value, _target(edit, f"{out}:shape", steps.shape))
        nodes.append(replace(plain, op="Reshape", inputs=inputs, outputs=(out,)))
    return nodes


def _target(edit: Edit, name: str, shape: SymShape) -> str:
    """The target of a Reshape as a constant; dynamic sizes stand in the value's own shape."""
    return edit.constant(name, [d if isinstance(d, int) else -1 for d in shape])
