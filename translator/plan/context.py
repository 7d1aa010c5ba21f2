"""What a rule sees and does: read a node's inputs in the layout decided for them, and add calls to the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from translator.bindings import Piece, WeightBinding
from translator.errors import InternalError
from translator.graph.derive import Derived
from translator.graph.evaluate import integers
from translator.graph.view import Graph, NodeView
from translator.layout.assign import Assignment
from translator.layout.permutation import in_place
from translator.plan.calls import Arg, Call, LayerCall, LayerSpec, OpCall, Ref
from translator.plan.materialise import Materialiser, in_graph
from translator.plan.naming import Namer, clean
from translator.plan.sharing import Sharing
from translator.types import Layout, Shape

OF_WEIGHTS = frozenset({
    "Linear", "Gemm", "MatMul", "Conv", "ConvTranspose", "BatchNormalization", "LayerNormalization",
    "GroupNormalization", "InstanceNormalization", "RMSNormalization", "PRelu", "LSTM", "GRU", "RNN",
})  # fmt: skip
"""Operations that a layer does with weights of its own: what goes in must be a value of the graph."""


class PlanContext:
    """Collects the calls of one plan. `values` maps every ONNX value planned so far to its value in the plan."""

    def __init__(self, graph: Graph, assignment: Assignment, namer: Namer) -> None:
        self.graph, self.assignment, self.namer = graph, assignment, namer
        self.calls: list[Call] = []
        self.layers: dict[str, LayerSpec] = {}
        self.values: dict[str, Ref] = {}
        self.lost: list[str] = []
        self.notes: list[str] = []
        self.transposes = 0
        self._calls_of: dict[str, int] = {}
        self.once: dict[str, Ref] = {}
        self.held: dict[tuple[Piece, ...], tuple[Ref, Derived]] = {}
        self._by_binding: dict[tuple[str, str, tuple[WeightBinding, ...]], str] = {}
        self._moved: dict[tuple[str, Layout, Layout], Ref] = {}
        self.sharing = Sharing(graph)
        self._materialiser = Materialiser(self)

    # Reading ---------------------------------------------------------------------------------------------------

    def shape(self, value: str) -> Shape:
        """PyTorch shape of a value, None where dynamic."""
        return self.graph.shape(value)

    def rank(self, value: str) -> int:
        """Number of axes of a value."""
        return self.graph.rank(value)

    def dtype(self, value: str) -> str:
        """numpy's name of a value's dtype."""
        return self.graph.dtypes.get(value, "float32")

    def layout(self, node: NodeView, index: int = 0) -> Layout:
        """The layout in which `arg(node, index)` comes."""
        value = node.inputs[index]
        found = self.assignment.demands[node.outputs[0]].inputs.get(value)
        if found is None and not self.graph.is_runtime(value):
            laid = self.out_layout(node)
            found = laid if len(laid.axes) == self.rank(value) and laid.view is None else None
        return found or Layout.identity(self.rank(value))

    def out_layout(self, node: NodeView, index: int = 0) -> Layout:
        """The layout decided for output `index`."""
        return self.assignment.demands[node.outputs[0]].outputs[index]

    def is_runtime(self, node: NodeView, index: int) -> bool:
        """Whether input `index` is computed when the model runs."""
        return node.has(index) and self.graph.is_runtime(node.inputs[index])

    def const(self, node: NodeView, index: int) -> np.ndarray | None:
        """The constant at input `index` in PyTorch's order, or None where it is absent or not constant."""
        return self.graph.constants.get(node.inputs[index]) if node.has(index) else None

    def ints(self, node: NodeView, index: int) -> list[int] | None:
        """Input `index` as plain integers, or None where absent. Raises UnsupportedError where it isn't known."""
        if not node.has(index):
            return None
        array = self.const(node, index)
        values = [v for v in integers(array) if isinstance(v, int)] if array is not None else []
        if array is None or len(values) != array.size:
            raise node.unsupported(f"input {index} is computed at run time", reason="data-dependent-shape")
        return values

    def param(self, node: NodeView, index: int) -> Derived | None:
        """The parameter at input `index`, with the steps it went through, or None.

        None, too, for one that several different layers read: it is a weight of its own, and `arg` gives it.
        """
        found = self.graph.derived.get(node.inputs[index]) if node.has(index) else None
        return None if found is None or self.sharing.how(found) == "free" else found

    def channels(self, node: NodeView) -> int:
        """How many channels input 0 has, on PyTorch's axis 1. Raises UnsupportedError where the input decides that."""
        found = self.shape(node.inputs[0])[1]
        if found is None:
            raise node.unsupported("a number of channels that changes with the input", reason="data-dependent-shape")
        return found

    def arg(self, node: NodeView, index: int = 0, *, like: int | Layout | None = None) -> Arg:
        """Input `index` as an argument of a call: a value in the layout demanded, a number, or an array.

        Constants and parameters are laid out for broadcasting against the node's output, or against input `like`, or a
        tensor of the layout `like`.
        """
        value = node.inputs[index]
        if self.graph.is_runtime(value):
            return self.move(
                self.values[value],
                self.assignment.layouts[value],
                self.layout(node, index),
                self.shape(value),
                node,
            )
        if index == 0 and node.op in OF_WEIGHTS and self._without_input(node):
            array = self._materialiser.argument(node, value, self.layout(node), numbers=False)
            return in_graph(self, node, array, role="constant")
        if like is None:
            target = self.out_layout(node)
        else:
            target = like if isinstance(like, Layout) else self.layout(node, like)
        return self._materialiser.argument(node, value, target)

    def _without_input(self, node: NodeView) -> bool:
        """Whether a node computes from a constant and its weights alone (`self.fc(torch.ones(1, 4))`)."""
        array = self.const(node, 0)
        return array is not None and array.dtype != object and not any(map(self.graph.is_runtime, node.inputs))

    def operand(self, node: NodeView, index: int, like: Layout) -> Arg:
        """As `arg`, in a layout of its own; a constant keeps all its axes: it is an array, never a number.

        For functions of keras.ops that don't broadcast, or that look at shapes: products, convolutions.
        """
        if self.is_runtime(node, index):
            return self.arg(node, index)
        return self._materialiser.argument(node, node.inputs[index], like, numbers=False)

    # Writing ---------------------------------------------------------------------------------------------------

    def layer(
        self,
        node: NodeView,
        cls: str,
        config: Mapping[str, Any] | None = None,
        weights: Mapping[str, Derived | np.ndarray] | None = None,
        args: Sequence[Arg] | None = None,
        *,
        role: str = "",
        main: bool = True,
    ) -> Ref:
        """Add a call of a layer; the same class on the same parameters is the same layer, called again.

        args: input 0 by default. role: names the layer where it isn't the module's main one ("pad").
        """
        name = self._layer_name(node, cls, config or {}, weights or {}, role=role, main=main)
        arguments = tuple(args) if args is not None else (self.arg(node),)
        return self._call(node, name, arguments)[0]

    def layer_several(
        self,
        node: NodeView,
        cls: str,
        config: Mapping[str, Any],
        weights: Mapping[str, Derived | np.ndarray],
        args: Sequence[Arg],
        *,
        outputs: int = 1,
        role: str = "",
        kwargs: Mapping[str, Arg] | None = None,
    ) -> tuple[Ref, ...]:
        """Add a call of a layer that gives `outputs` values, or takes arguments by name."""
        name = self._layer_name(node, cls, config, weights, role=role, main=not role)
        return self._call(node, name, args, outputs=outputs, kwargs=kwargs)

    def weight_layer(
        self,
        node: NodeView,
        owner: str,
        cls: str,
        config: Mapping[str, Any],
        weights: Mapping[str, Derived | np.ndarray],
        args: Sequence[Arg],
    ) -> Ref:
        """Add a layer that only holds the parameter `owner`, named after it ("encoder_pos_embedding")."""
        name = self._layer_name(node, cls, config, weights, owner=owner)
        return self._call(node, name, args)[0]

    def _layer_name(
        self,
        node: NodeView,
        cls: str,
        config: Mapping[str, Any],
        weights: Mapping[str, Derived | np.ndarray],
        *,
        role: str = "",
        main: bool = True,
        owner: str = "",
    ) -> str:
        """The layer of this class on these parameters: one that is there already, or a new one."""
        if any(0 in source.shape for source in weights.values()):
            raise node.unsupported("a weight without elements", reason="attribute")
        bindings = tuple(_binding(k, v) for k, v in weights.items())
        tied = bool(bindings) and all(b.pieces for b in bindings)
        key = (cls, repr(sorted(config.items())), bindings)
        if tied and key in self._by_binding:
            return self._by_binding[key]
        if owner:
            name = self.namer.unique(clean(owner))
        else:
            name = self.namer.name(node.origin, role or cls, main=main and not role)
        self.layers[name] = LayerSpec(name=name, cls=cls, config=dict(config), bindings=bindings, origin=node.origin)
        if tied:
            self._by_binding[key] = name
        return name

    def op(self, node: NodeView, op: str, *args: Arg, role: str = "", main: bool = True, **kwargs: Arg) -> Ref:
        """Add a call of `keras.ops.<op>` that gives one value. role: names it where it isn't the module's main one."""
        return self.op_several(node, op, *args, outputs=1, role=role, main=main, **kwargs)[0]

    def op_several(
        self, node: NodeView, op: str, *args: Arg, outputs: int, role: str = "", main: bool = True, **kwargs: Arg
    ) -> tuple[Ref, ...]:
        """Add a call of `keras.ops.<op>` that gives a tuple or list of `outputs` values."""
        name = self.namer.name(node.origin, role or op, main=main and not role)
        refs = tuple(Ref(name if i == 0 else f"{name}:{i}") for i in range(outputs))
        self.calls.append(
            OpCall(name=name, op=op, args=args, kwargs=kwargs, outputs=tuple(r.value for r in refs), origin=node.origin)
        )
        return refs

    def _call(
        self,
        node: NodeView,
        name: str,
        args: Sequence[Arg],
        *,
        outputs: int = 1,
        kwargs: Mapping[str, Arg] | None = None,
    ) -> tuple[Ref, ...]:
        count = self._calls_of.get(name, 0)
        self._calls_of[name] = count + 1
        value = name if count == 0 else f"{name}@{count}"
        values = tuple(value if i == 0 else f"{value}:{i}" for i in range(outputs))
        self.calls.append(
            LayerCall(layer=name, args=tuple(args), outputs=values, kwargs=dict(kwargs or {}), origin=node.origin)
        )
        return tuple(Ref(v) for v in values)

    def move(self, ref: Ref, have: Layout, want: Layout, shape: Shape, node: NodeView) -> Ref:
        """The value in the layout wanted; a transpose is added (and counted, once per value) where they differ.

        Where only axes of size 1 change places, nothing moves in memory: that is a reshape.
        """
        if have == want:
            return ref
        if (ref.value, have, want) in self._moved:
            return self._moved[ref.value, have, want]
        if want.view is not None:
            raise InternalError(f"{node.key}: a value is wanted in a flattened layout that it doesn't have")
        dynamic = sum(d is None for d in shape)
        if have.view is None and dynamic <= 1 and in_place(have.axes, want.axes, shape):
            stood = free_shape([shape[a] for a in want.axes])
            result = self._moved[ref.value, have, want] = self.op(node, "reshape", ref, stood, role="align")
            return result
        result = ref
        if have.view is not None:
            seen = tuple(have.view[a] for a in have.axes)
            result = self.op(node, "reshape", result, free_shape(seen), role="unflatten")
            result = self.op(node, "transpose", result, _inverse(have.axes), role="transpose")
            result = self.op(node, "reshape", result, free_shape(shape), role="flatten")
        else:
            perm = tuple(have.axes.index(a) for a in want.axes)
            result = self.op(node, "transpose", result, perm, role="transpose")
        self.transposes += 1
        self._moved[ref.value, have, want] = result
        return result


def _inverse(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(a) for a in np.argsort(axes))


def free_shape(shape: Sequence[int | None]) -> tuple[int, ...]:
    """A target shape for reshape: the one dynamic dimension is -1. Raises InternalError for two of them."""
    if sum(d is None for d in shape) > 1:
        raise InternalError(f"a reshape to {tuple(shape)} has more than one dynamic dimension")
    return tuple(-1 if d is None else d for d in shape)


def _binding(variable: str, source: Derived | np.ndarray) -> WeightBinding:
    if isinstance(source, Derived):
        return WeightBinding(
            variable=variable,
            shape=source.shape,
            pieces=source.pieces,
            join=source.join,
            axis=source.axis,
            steps=source.steps,
            trainable=source.trainable,
        )
    return WeightBinding(variable=variable, shape=source.shape, trainable=False, constant=source)
