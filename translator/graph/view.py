"""The traced model as plain data that every later stage reads: nodes, values, constants and derived parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from translator.errors import UnsupportedError, Where
from translator.graph.derive import Derived
from translator.graph.dims import SymShape, public
from translator.types import Origin, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One ONNX node. inputs: value names, "" where an optional input is absent. attributes: plain Python values."""

    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    origin: Origin
    name: str = ""

    @property
    def key(self) -> str:
        """The op with its domain, as rules are registered: "Conv", "translator::Attention"."""
        return f"{self.domain}::{self.op}" if self.domain else self.op

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute, or the default where it is absent."""
        return self.attributes.get(name, default)

    def has(self, index: int) -> bool:
        """Whether input `index` is given."""
        return index < len(self.inputs) and self.inputs[index] != ""

    @property
    def where(self) -> Where:
        """The place in the user's model, for messages."""
        source = self.origin.source
        return Where(module=self.origin.module or "(root)", source=source, node=f"{self.key} {self.name}".strip())

    def unsupported(self, what: str, *, reason: str = "attribute", fix: str = "") -> UnsupportedError:
        """The refusal of this node, to be raised by the caller."""
        return UnsupportedError(f"{self.key}: {what}", reason=reason, where=self.where, fix=fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The values on the borders of one module call, by position: "" where nothing is known. Only sides with several.

    arguments: which argument each input is.
    """

    inputs: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A whole model in order of computation.

    shapes: symbolic shape of every value. dtypes: numpy's name of every value's dtype. constants: values known before
    any input is (object arrays hold symbolic integers; floats are kept in float64). derived: values that are a
    parameter after invertible steps. Nodes whose outputs are all constant or derived are not listed.
    ports: by module path and call, where a side of a module has several tensors.
    """

    nodes: tuple[NodeView, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: Mapping[str, SymShape]
    dtypes: Mapping[str, str]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    derived: Mapping[str, Derived] = field(default_factory=dict)
    baked: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[tuple[str, int], Ports] = field(default_factory=dict)
    _readers: dict[str, tuple[NodeView, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def shape(self, value: str) -> Shape:
        """Shape of a value, None where dynamic."""
        return public(self.shapes[value])

    def rank(self, value: str) -> int:
        """Number of axes of a value."""
        return len(self.shapes[value])

    def is_runtime(self, value: str) -> bool:
        """Whether the value depends on the model's input."""
        return bool(value) and value not in self.constants and value not in self.derived

    def consumers(self) -> Mapping[str, tuple[NodeView, ...]]:
        """The nodes that read each value, in order."""
        if not self._readers:
            table: dict[str, list[NodeView]] = {}
            for node in self.nodes:
                for value in dict.fromkeys(node.inputs):
                    table.setdefault(value, []).append(node)
            self._readers.update({value: tuple(nodes) for value, nodes in table.items()})
        return self._readers

    def producers(self) -> Mapping[str, NodeView]:
        """The node that computes each value."""
        return {value: node for node in self.nodes for value in node.outputs}

    def runtime_inputs(self, node: NodeView) -> Iterator[str]:
        """The inputs of a node that depend on the model's input."""
        return (value for value in node.inputs if self.is_runtime(value))


def live(nodes: Sequence[NodeView], outputs: Sequence[str]) -> tuple[NodeView, ...]:
    """The nodes that the outputs need, in order."""
    needed = set(outputs)
    kept: list[NodeView] = []
    for node in reversed(nodes):
        if any(o in needed for o in node.outputs):
            kept.append(node)
            needed.update(i for i in node.inputs if i)
    return tuple(reversed(kept))
