"""What every fusion needs: who makes and reads a value, which values nobody else sees, nodes in others' place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from translator.graph.derive import Derived
from translator.graph.dims import SymShape
from translator.graph.view import Graph, NodeView


@dataclass(slots=True)
class Edit:
    """Changes to a graph, collected and then made at once with `done`."""

    graph: Graph
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    derived: dict[str, Derived] = field(default_factory=dict)
    shapes: dict[str, SymShape] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    _producers: Mapping[str, NodeView] = field(default_factory=dict)
    _ports: frozenset[str] = frozenset()
    _new: dict[int, tuple[NodeView, ...]] = field(default_factory=dict)
    _gone: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._producers = self.graph.producers()
        marked = (v for p in self.graph.ports.values() for v in (*p.inputs, *p.outputs))
        self._ports = frozenset(marked)

    def producer(self, value: str) -> NodeView | None:
        """The node that makes a value; None for inputs, constants and parameters."""
        return self._producers.get(value)

    def readers(self, value: str) -> tuple[NodeView, ...]:
        """The nodes that read a value."""
        return self.graph.consumers().get(value, ())

    def private(self, value: str) -> bool:
        """Whether one node alone reads the value, in the module call that made it: it may vanish."""
        made, readers = self._producers.get(value), self.readers(value)
        if made is None or len(readers) != 1 or value in self.graph.outputs or value in self._ports:
            return False
        return readers[0].origin.scopes == made.origin.scopes and id(made) not in self._gone

    def gone(self, node: NodeView) -> bool:
        """Whether the node was replaced already."""
        return id(node) in self._gone

    def number(self, value: str) -> float | None:
        """The number that a constant of one element is."""
        array = self.graph.constants.get(value)
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 and array.dtype != object else None

    def constant(self, name: str, values: Sequence[int]) -> str:
        """A new constant of whole numbers; its name."""
        self.constants[name] = np.array(values, dtype=np.int64)
        self.shapes[name] = (len(values),)
        self.dtypes[name] = "int64"
        return name

    def value(self, name: str, shape: SymShape, like: str) -> str:
        """A new value with the dtype of another; its name."""
        self.shapes[name] = shape
        self.dtypes[name] = self.graph.dtypes.get(like, "float32")
        return name

    def seen_as(self, value: str, shape: SymShape) -> str | None:
        """A value in another shape without a node: a parameter, a constant, or what was reshaped from that shape."""
        graph, made = self.graph, self.producer(value)
        if made is not None:
            back = made.key == "Reshape" and graph.shapes[made.inputs[0]] == shape
            return made.inputs[0] if back else None
        if value not in graph.derived and value not in graph.constants:
            return None
        name = self.value(f"{value}:seen_as_{'x'.join(map(str, shape))}", shape, value)
        sizes = [int(str(d)) for d in shape]
        if value in graph.derived:
            self.derived[name] = graph.derived[value].reshape(sizes)
        else:
            self.constants[name] = graph.constants[value].reshape(sizes)
        return name

    def put(self, old: Sequence[NodeView], new: Sequence[NodeView]) -> None:
        """Replace nodes, the last of which stands last in the graph, by others in that place."""
        self._gone.update(id(n) for n in old)
        self._new[id(old[-1])] = tuple(new)

    @property
    def done(self) -> Graph:
        """The changed graph."""
        if not self._new and not self.derived:
            return self.graph
        nodes: list[NodeView] = []
        for node in self.graph.nodes:
            if id(node) in self._new:
                nodes += self._new[id(node)]
            elif id(node) not in self._gone:
                nodes.append(node)
        return replace(
            self.graph,
            nodes=tuple(nodes),
            constants={**self.graph.constants, **self.constants},
            derived={**self.graph.derived, **self.derived},
            shapes={**self.graph.shapes, **self.shapes},
            dtypes={**self.graph.dtypes, **self.dtypes},
        )
