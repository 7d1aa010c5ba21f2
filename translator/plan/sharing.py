"""How a parameter that is read at several places is held in the Keras model, so that it is one variable there, too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from translator.graph.derive import Derived
from translator.graph.view import Graph, NodeView

How = Literal["layer", "reversible", "free"]
"""layer: every reader is the same layer, called again. reversible: an embedding whose transpose is a head, one layer
called both ways. free: a weight of its own, which the readers take as an argument."""


class Sharing:
    """Looks up how the parameters of one graph are held."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._readers: dict[str, list[tuple[NodeView, int]]] = {}
        self._how: dict[str, How] = {}
        for node in graph.nodes:
            for index, value in enumerate(node.inputs):
                derived = graph.derived.get(value)
                for tensor in {p.tensor for p in derived.pieces} if derived is not None else ():
                    self._readers.setdefault(tensor, []).append((node, index))
        shown = (graph.derived[name] for name in graph.outputs if name in graph.derived)
        self._shown = frozenset(piece.tensor for derived in shown for piece in derived.pieces)

    def how(self, source: Derived) -> How:
        """How the parameter behind a value is held; of several tensors the least simple way."""
        ways = {self._of(tensor) for tensor in dict.fromkeys(p.tensor for p in source.pieces)}
        return "free" if "free" in ways else "reversible" if "reversible" in ways else "layer"

    def readers(self, source: Derived) -> tuple[NodeView, ...]:
        """The nodes that read this very value."""
        found = self._readers.get(source.tensor, [])
        return tuple(node for node, index in found if self._graph.derived[node.inputs[index]] == source)

    def looked_up(self, source: Derived) -> bool:
        """Whether the value is a whole table that some node looks up at computed indices."""
        return len(source.pieces) == 1 and any(
            node.key == "Gather" and index == 0 and node.attr("axis", 0) == 0 and self._is_table(node)
            for node, index in self._readers.get(source.tensor, [])
        )

    def _is_table(self, node: NodeView) -> bool:
        table = self._graph.derived[node.inputs[0]]
        plain = not table.steps and len(table.shape) == 2 and len(table.pieces) == 1 and table.pieces[0].region is None
        return plain and node.inputs[1] not in self._graph.constants

    def _of(self, tensor: str) -> How:
        if tensor not in self._how:
            readers = self._readers.get(tensor, [])
            self._how[tensor] = "free" if tensor in self._shown and readers else self._find(readers)
        return self._how[tensor]

    def _find(self, readers: list[tuple[NodeView, int]]) -> How:
        """One reader, or readers that are one layer; regions of a tensor are apart where no two of them overlap."""
        layers = {self._layer(node, index) for node, index in readers}
        if len(layers) < 2 or self._apart(readers):
            return "layer"
        return "reversible" if self._reversible(readers) else "free"

    def _layer(self, node: NodeView, index: int) -> tuple[object, ...]:
        weights = tuple(self._graph.derived.get(v) for v in node.inputs)
        module = "" if node.key == "Gather" else node.origin.module  # whoever looks up in a table does it the same way
        return (node.key, index, weights, tuple(sorted(map(repr, node.attributes.items()))), module)

    def _apart(self, readers: Iterable[tuple[NodeView, int]]) -> bool:
        """Whether different readers read different regions of the tensor: query, key and value of one matrix."""
        seen: dict[object, set[tuple[object, ...]]] = {}
        for node, index in readers:
            pieces = self._graph.derived[node.inputs[index]].pieces
            if len(pieces) != 1 or pieces[0].region is None:
                return False
            seen.setdefault(pieces[0].region, set()).add(self._layer(node, index))
        regions = list(seen)
        return all(len(layers) == 1 for layers in seen.values()) and not any(
            _overlap(a, b) for i, a in enumerate(regions) for b in regions[:i]
        )

    def _reversible(self, readers: list[tuple[NodeView, int]]) -> bool:
        """A whole table looked up by computed indices, and the same table as the matrix of a linear map."""
        tables = [n for n, i in readers if n.key == "Gather" and i == 0 and n.attr("axis", 0) == 0]
        heads = [(n, i) for n, i in readers if n.key in ("Gemm", "translator::Linear") and i == 1]
        if not tables or not heads or len(tables) + len(heads) != len(readers):
            return False
        if any(n.inputs[1] in self._graph.constants for n in tables):
            return False
        whole = self._graph.derived[tables[0].inputs[0]]
        return not whole.steps and all(self._plain(n, whole) for n, _ in heads)

    def _plain(self, head: NodeView, table: Derived) -> bool:
        weight = self._graph.derived[head.inputs[1]]
        turned = head.key == "Gemm" and not head.attr("transB", 0)
        scaled = head.key == "Gemm" and (head.attr("alpha", 1.0) != 1.0 or head.attr("transA", 0))
        return not turned and not scaled and _same_numbers(weight, table)


def _overlap(a: object, b: object) -> bool:
    return all(x[0] < y[1] and y[0] < x[1] for x, y in zip(a, b, strict=True))  # type: ignore[call-overload]


def _same_numbers(a: Derived, b: Derived) -> bool:
    """Whether two values are the same array: the same pieces, and steps that undo each other."""
    from translator.bindings import Permute

    steps = [s for s in a.steps if not isinstance(s, Permute)]
    order = tuple(range(len(a.shape)))
    for step in a.steps:
        if isinstance(step, Permute):
            order = tuple(order[i] for i in step.axes)
    return a.pieces == b.pieces and not steps and order == tuple(range(len(a.shape)))
