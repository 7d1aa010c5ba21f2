"""A Keras model as a `Network`, read off its graph of steps."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from translator.audit.kinds import kind_and_signature
from translator.audit.network import Network, Unit, Weight
from translator.audit.torch_functions import turned
from translator.claims import KerasValue
from translator.types import Shape
from translator.verify.facts import Conv, Dense, Embedding, Facts, Ints, Pool, Presence
from translator.verify.facts_keras import inner_activation, keras_facts, window_facts
from translator.verify.keras_graph import KerasGraph, Step
from translator.verify.keras_kinds import call_argument, keras_class, keras_classes, presence
from translator.verify.keras_layers import owners
from translator.verify.keras_record import ReadVariable, reads_only_sizes
from translator.verify.keras_split import ActivationHalf, DepthwiseHalf, Half, LastHalf, PointwiseHalf, layer_path

_JOINS = {
    "Add": "add", "Subtract": "sub", "Multiply": "mul", "Divide": "div", "TrueDivide": "div", "Maximum": "max",
    "Minimum": "min", "Average": "average", "Concatenate": "concat", "Stack": "concat", "Matmul": "matmul",
    "Einsum": "matmul", "Dot": "matmul", "Tensordot": "matmul", "DotProductAttention": "attend", "Attention": "attend",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasNetwork:
    """The network; the first name of each of its values; and every variable of the model by the layer that owns it.

    names: value number → where the judge finds it (values inside a layer have none).
    """

    network: Network
    graph: KerasGraph = field(repr=False)
    names: Mapping[int, KerasValue] = field(repr=False)
    weights: tuple[Weight, ...] = field(repr=False)


def network_of(model: keras.Model, graph: KerasGraph, input_shapes: Sequence[Shape]) -> KerasNetwork:
    """Read the network off the graph. input_shapes: of the model's inputs, in Keras' order of axes and of inputs."""
    builder = _Builder(graph, concrete_shapes(graph, input_shapes), owners(model))
    for step in graph.steps:
        builder.add(step)
    names: dict[int, KerasValue] = {}
    for value, number in graph.names.items():
        names.setdefault(number, value)
    network = Network(
        name=model.name,
        units=tuple(builder.units),
        shapes=tuple(builder.shapes),
        inputs=tuple(graph.inputs),
        outputs=tuple(graph.outputs),
        past=builder.past,
        scalars=builder.scalars,
    )
    return KerasNetwork(network=network, graph=graph, names=names, weights=variables_of(model, graph))


def variables_of(model: keras.Model, graph: KerasGraph) -> tuple[Weight, ...]:
    """Every weight of the model once; those that no step reaches go by their own path."""
    found: dict[int, Weight] = {}
    owned = owners(model)
    for step in graph.steps:
        for weight in (*weights_of(step, owned), *arguments_of(step, owned)):
            found.setdefault(id(weight.handle), weight)
    for variable in model.weights:
        found.setdefault(id(variable), _free_weight(variable, owned))
    return tuple(found.values())


def weights_of(step: Step, owned: Owners) -> tuple[Weight, ...]:
    """The weights of a step's layer, each with the name of its slot."""
    layer = step.operation
    if isinstance(layer, ReadVariable):
        return tuple(_free_weight(v, owned) for v in layer.weights)
    path = layer_path(step.path)
    return tuple(
        Weight(
            slot=slot_of(layer, variable), name=f"{path}/{slot_of(layer, variable)}", shape=tuple(variable.shape),
            trainable=bool(variable.trainable), handle=variable,
        )
        for variable in getattr(layer, "weights", ())
    )  # fmt: skip


Owners = Mapping[int, tuple[str, keras.layers.Layer]]


def arguments_of(step: Step, owned: Owners) -> tuple[Weight, ...]:
    """Variables that a function reads: weights that a layer of the user's own computes with."""
    flat = keras.tree.flatten((step.node.arguments.args, step.node.arguments.kwargs))
    found = {id(v): v for v in flat if isinstance(v, keras.Variable) and id(v) in owned}
    return tuple(_free_weight(v, owned) for v in found.values())


def _free_weight(variable: Any, owned: Owners) -> Weight:
    path, slot = owned[id(variable)][0] if id(variable) in owned else "", str(variable.name)
    name = f"{path}/{slot}" if path else str(variable.path)
    trainable, shape = bool(variable.trainable), tuple(variable.shape)
    return Weight(slot=slot, name=name, shape=shape, trainable=trainable, handle=variable)


def slot_of(layer: keras.Operation, variable: Any) -> str:
    """What a variable is to its layer: "kernel"; in a composite layer "query/kernel"."""
    parts = str(variable.path).split("/")
    inside = parts[len(parts) - 1 - parts[::-1].index(layer.name) + 1 :] if layer.name in parts else parts[-1:]
    return "/".join(inside) or str(variable.name)


def concrete_shapes(graph: KerasGraph, input_shapes: Sequence[Shape]) -> list[Shape]:
    """Shapes of all values for these inputs; where Keras knew them already, at once.

    A graph built for images of any size says None for H and W: then every step is asked again.
    """
    known: list[Shape] = [tuple(s) for s in graph.shapes]
    for number, shape in zip(graph.inputs, input_shapes, strict=True):
        known[number] = shape
    if all(d is not None for shape in graph.shapes for d in shape[1:]):
        batch = input_shapes[0][0] if input_shapes and input_shapes[0] else None
        return [(batch, *s[1:]) if s and s[0] is None else tuple(s) for s in known]
    for step in graph.steps:
        if isinstance(step, Half):
            known[step.outputs[0]] = step.shape(known)
            continue
        fill = {t: keras.KerasTensor(known[n], dtype=graph.dtypes[n]) for t, n in step.bound.items()}
        args, kwargs = step.node.arguments.fill_in(fill)
        outputs = keras.tree.flatten(step.operation.compute_output_spec(*args, **_known_to_spec(step, kwargs)))
        for number, tensor in zip(step.outputs, outputs, strict=True):
            known[number] = tuple(tensor.shape)
    return known


def _known_to_spec(step: Step, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The call's arguments without those, such as `training`, that only the call itself takes."""
    known = inspect.signature(step.operation.compute_output_spec).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        return dict(kwargs)
    return {name: value for name, value in kwargs.items() if name in known}


class _Builder:
    """Turns steps into units, one after the other."""

    def __init__(self, graph: KerasGraph, shapes: list[Shape], owned: Owners) -> None:
        self.graph = graph
        self.owned = owned
        self.shapes = shapes
        self.units: list[Unit] = []
        self.past: dict[int, tuple[int, ...]] = {}
        self.scalars: dict[int, tuple[str, float]] = {}
        self.made_of: dict[int, tuple[Weight, ...]] = {}

    def add(self, step: Step) -> None:
        """One step: a unit, or an edge that runs past it."""
        if isinstance(step, ActivationHalf):
            inner = inner_activation(step.operation)
            known = kind_and_signature(inner) if inner is not None else None
            self._unit(step, "act", known[1] if known else (), step.inputs, inner, ())
            return
        if isinstance(step, LastHalf):
            self.past[step.outputs[0]] = step.inputs
            return
        if isinstance(step, DepthwiseHalf | PointwiseHalf):
            self._separable(step, weights_of(step, self.owned))
            return
        read = [step.bound[id(t)] for t in _arguments(step)]
        data = [n for n in read if n not in self.made_of]
        weights = (*weights_of(step, self.owned), *arguments_of(step, self.owned))
        held = tuple(w for n in dict.fromkeys(read) for w in self.made_of.get(n, ()))
        if _free_parameter(step) or (not data and (held or weights)) or self._is_table(step, weights):
            self.made_of.update(dict.fromkeys(step.outputs, (*held, *weights)))
            return
        facts = facts_of(step.operation, self._sizes(step, data))
        known = kind_and_signature(facts) if facts is not None else None
        if facts is not None and known is not None:
            self._unit(step, known[0], known[1], data, facts, (*weights, *held))
        elif (dense := _own_dense(step, data, held)) is not None:
            known = kind_and_signature(dense) or ("linear", ())
            self._unit(step, known[0], known[1], data, dense, tuple(replace(w, role="kernel") for w in held))
        elif (join := self._join(step, data)) is not None:
            self._unit(step, join, tuple(w.size for w in held), data, None, held)
        elif weights or held:
            sizes = tuple(w.size for w in (*weights, *held))
            self._unit(step, "constant", sizes, data, None, (*weights, *held))
        else:
            self.past.update(dict.fromkeys(step.outputs, tuple(dict.fromkeys(data))))
            if (scalar := _scalar_step(step)) is not None:
                self.scalars[step.outputs[0]] = scalar

    def _is_table(self, step: Step, weights: Sequence[Weight]) -> bool:
        """A layer of its own weights that only asks for sizes."""
        layer = step.operation
        if not weights or not isinstance(layer, keras.layers.Layer) or keras_facts(layer) is not None:
            return False
        return reads_only_sizes(layer, step.node, {t: self.shapes[n] for t, n in step.bound.items()})

    def _join(self, step: Step, data: Sequence[int]) -> str | None:
        if len(data) < 2:
            return None
        kind = next((_JOINS[name] for name in keras_classes(step.operation) if name in _JOINS), None)
        several = len({s for n in data for s in self._sources(n)}) > 1
        return kind or ("join" if several and not getattr(step.operation, "weights", ()) else None)

    def _sources(self, value: int) -> list[int]:
        return [s for n in self.past[value] for s in self._sources(n)] if value in self.past else [value]

    def _sizes(self, step: Step, data: Sequence[int]) -> Ints | None:
        if not data:
            return None
        shape = self.shapes[data[0]]
        first = getattr(step.operation, "data_format", "channels_last") == "channels_first"
        spatial = shape[2:] if first else shape[1:-1]
        known = tuple(n for n in spatial if n is not None)
        return known if spatial and len(known) == len(spatial) else None

    def _unit(
        self,
        step: Step,
        kind: str,
        signature: tuple[Any, ...],
        data: Sequence[int],
        facts: Facts | None,
        weights: tuple[Weight, ...],
    ) -> None:
        half = isinstance(step, ActivationHalf)
        text = f"activation of {keras_class(step.operation)}" if half else keras_class(step.operation)
        unit = Unit(
            index=len(self.units), kind=kind, signature=signature, path=layer_path(step.path),
            call=step.call, text=text, inputs=tuple(data), outputs=step.outputs, facts=facts,
            weights=weights, operations=(step.operation,), function=_JOINS.get(keras_class(step.operation), ""),
            equation=str(getattr(step.operation, "subscripts", "")),
        )  # fmt: skip
        self.units.append(unit)

    def _separable(self, step: DepthwiseHalf | PointwiseHalf, weights: tuple[Weight, ...]) -> None:
        """A separable convolution is a depthwise one and a pointwise one."""
        op: Any = step.operation
        depth = next(w for w in weights if "depthwise" in w.slot)
        *kernel, channels, multiplier = depth.shape
        sizes, dilation = self._sizes(step, step.inputs), tuple(op.dilation_rate)
        windows = window_facts(op, tuple(op.kernel_size), sizes=sizes, dilation=dilation, fill=0.0)
        if isinstance(step, DepthwiseHalf):
            held: tuple[Weight, ...] = (depth,)
            facts = Conv(
                transposed=False, channels=channels, filters=channels * multiplier, windows=windows, groups=channels,
                bias=Presence.NONE,
            )  # fmt: skip
        else:
            held = tuple(w for w in weights if w is not depth)
            ones = tuple(1 for _ in kernel)
            none = tuple((0, 0) for _ in ones)
            facts = Conv(
                transposed=False, channels=channels * multiplier, filters=int(op.filters),
                windows=replace(windows, kernel=ones, stride=ones, dilation=ones, padding=none), groups=1,
                bias=presence(op.bias, 0.0),
            )  # fmt: skip
        kind, signature = kind_and_signature(facts) or ("linear", ())
        self._unit(step, kind, signature, step.inputs, facts, held)


_SCALAR_STEPS = {
    "Add": "add", "Multiply": "mul", "Subtract": "sub", "Divide": "div", "TrueDivide": "div", "Power": "pow",
    "Maximum": "max", "Minimum": "min",
}  # fmt: skip
_POWERS = {"Square": 2.0, "Sqrt": 0.5, "Reciprocal": -1.0, "Rsqrt": -0.5}


def _scalar_step(step: Step) -> tuple[str, float] | None:
    """The arithmetic of one tensor with one number; None for anything else."""
    kind, args = keras_class(step.operation), step.node.arguments.args
    if len(args) == 1 and kind in (*_POWERS, "Negative"):
        return ("pow", _POWERS[kind]) if kind in _POWERS else ("mul", -1.0)
    name = _SCALAR_STEPS.get(kind)
    if name is None or len(args) != 2 or len(step.outputs) != 1:
        return None
    numbers = [a for a in args if not isinstance(a, keras.KerasTensor) and np.size(a) == 1]
    if len(numbers) != 1:
        return None
    number = float(np.asarray(keras.ops.convert_to_numpy(numbers[0])).reshape(()))
    return turned(name, number, first=numbers[0] is args[0])


def _arguments(step: Step) -> list[Any]:
    """The tensors that a step reads: of attention query, value and key, always all three, whatever else it is given."""
    tensors = list(step.node.input_tensors)
    if "MultiHeadAttention" not in keras_classes(step.operation):
        return tensors
    args, kwargs = step.node.arguments.args, step.node.arguments.kwargs
    given = {**dict(zip(("query", "value", "key"), args, strict=False)), **kwargs}
    query, value, key = given.get("query"), given.get("value"), given.get("key")
    key = value if key is None else key
    known = all(isinstance(t, keras.KerasTensor) for t in (query, value, key))
    return [query, value, key] if known else tensors


def _own_dense(step: Step, data: Sequence[int], held: Sequence[Weight]) -> Dense | None:
    """`x @ w` with a variable w of a user's layer: a dense layer."""
    args = step.node.arguments.args
    if keras_class(step.operation) not in ("Matmul", "Dot") or len(data) != 1 or len(args) != 2 or len(held) != 1:
        return None
    first = isinstance(args[0], keras.KerasTensor) and step.bound.get(id(args[0])) == data[0]
    if not first or len(held[0].shape) != 2 or tuple(args[1].shape) != held[0].shape:
        return None
    return Dense(channels=held[0].shape[0], units=held[0].shape[1], bias=Presence.NONE)


def facts_of(operation: keras.Operation, sizes: Ints | None) -> Facts | None:
    """What a step computes: Keras' own kinds, EinsumDense as a dense layer, means over axes as a global pooling."""
    name = keras_class(operation)
    if name == "EinsumDense":
        return _einsum_dense(operation)
    if name in ("Mean", "Max", "Amax"):
        axes = call_argument(operation, "axis", 1)
        axes = axes if isinstance(axes, tuple | list) else (axes,)
        if None in axes or 0 in axes:
            return None
        return Pool(kind="average" if name == "Mean" else "max", output=(1,) * len(axes))
    if name == "TimeDistributed":
        return facts_of(operation.layer, sizes)
    return keras_facts(operation, sizes)


def _einsum_dense(op: Any) -> Dense | None:
    """EinsumDense as a matrix: what it sums over and what it makes. None for a per-channel scale."""
    terms = str(op.equation).replace("...", "").replace(" ", "")
    left, output = terms.split("->")
    given, kernel = left.split(",")
    summed = [n for label, n in zip(kernel, op.kernel.shape, strict=True) if label in given and label not in output]
    made = [n for label, n in zip(kernel, op.kernel.shape, strict=True) if label in output and label not in given]
    if not summed or len(summed) + len(made) != len(kernel):
        return None
    channels, units = 1, 1
    for n in summed:
        channels *= int(n)
    for n in made:
        units *= int(n)
    return Dense(channels=channels, units=units, bias=presence(op.bias, 0.0))


def _free_parameter(step: Step) -> bool:
    """An Embedding of one row is a parameter of its own, looked up at an index that is always 0."""
    facts = keras_facts(step.operation)
    return isinstance(facts, Embedding) and facts.rows == 1
