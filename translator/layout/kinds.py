"""How each kind of op treats layouts: what it demands of its inputs, and how its outputs then lie.

A function per kind: (node, layouts of the inputs, graph) → `Demand`. Ops without an entry demand PyTorch's own order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from translator.graph.evaluate import integers
from translator.graph.view import Graph, NodeView
from translator.layout.permutation import dropped, inner, inserted, reshaped, transposed
from translator.types import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """inputs: the layout wanted of each runtime input, by value name. outputs: the layout of each output."""

    inputs: Mapping[str, Layout]
    outputs: tuple[Layout, ...]


_LOOK_AHEAD = 8
"""How many ops ahead a reshape looks for a convolution."""

Kind = Callable[[NodeView, Mapping[str, Layout], Graph], Demand]
KINDS: dict[str, Kind] = {}


def kind(*ops: str) -> Callable[[Kind], Kind]:
    """Register the layout behaviour of ops (named as rules are: "Conv", "translator::Attention")."""

    def register(function: Kind) -> Kind:
        for op in ops:
            KINDS[op] = function
        return function

    return register


def demand(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    """What `node` wants, its runtime inputs lying as in `have`; where its main input is a weight, PyTorch's order."""
    function = KINDS.get(node.key, _own_order)
    if function in _KEEPING:
        laid = _laid_as_kernel(node, graph)
        if laid:
            wanted = function(node, {**have, **laid}, graph)
            return Demand(inputs={v: a for v, a in wanted.inputs.items() if v in have}, outputs=wanted.outputs)
    if function not in _MANY and (not node.inputs or node.inputs[0] not in have):
        function = _own_order
    return function(node, have, graph)


def _outputs(node: NodeView, graph: Graph, layout: Layout) -> tuple[Layout, ...]:
    return tuple(layout for _ in node.outputs)


def _own_order(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    wanted = {v: Layout.identity(graph.rank(v)) for v in have}
    outs = tuple(Layout.identity(len(graph.shapes.get(o, ()))) for o in node.outputs)
    return Demand(inputs=wanted, outputs=outs)


@kind(
    "Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "Resize",
    "DepthToSpace", "SpaceToDepth", "GlobalLpPool", "GroupNormalization", "InstanceNormalization", "LRN", "GridSample",
    "AffineGrid", "translator::AdaptiveAveragePool", "translator::AdaptiveMaxPool",
)  # fmt: skip
def _spatial(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    """Keras' convolutions and poolings are channels-last; a kernel that is computed comes as (*k, in, out)."""
    wanted = {v: Layout.identity(graph.rank(v)) for v in have}
    if node.inputs[0] in have:
        wanted[node.inputs[0]] = Layout.channels_last(graph.rank(node.inputs[0]))
    if node.op in _KERNELS and node.inputs[1] in have:
        wanted[node.inputs[1]] = _KERNELS[node.op](graph.rank(node.inputs[1]))
    return Demand(inputs=wanted, outputs=tuple(Layout.channels_last(len(graph.shapes[o])) for o in node.outputs if o))


@kind("BatchNormalization")
def _batch_norm(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    """Takes any axis, but a flattened tensor must be in PyTorch's order."""
    layout = have[node.inputs[0]]
    layout = Layout(axes=layout.axes) if layout.view is None else Layout.identity(graph.rank(node.inputs[0]))
    return Demand(inputs={node.inputs[0]: layout}, outputs=_outputs(node, graph, layout))


@kind(
    "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Gelu", "HardSigmoid",
    "HardSwish", "Mish", "Erf", "Exp", "Log", "Sqrt", "Abs", "Neg", "Reciprocal", "Floor", "Ceil", "Round", "Sign",
    "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Not", "Cast", "Identity",
    "Dropout", "translator::Dropout", "ThresholdedRelu", "Shrink", "IsNaN", "IsInf", "Swish", "translator::Silu",
    "BitwiseNot", "translator::Log1p", "translator::Expm1", "translator::LogSigmoid",
    "translator::ErfInv", "translator::NanToNum",
)  # fmt: skip
def _unary(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    layout = have[node.inputs[0]]
    if node.op == "Dropout" and node.attr("kind", "element") == "channel" and layout.view is not None:
        layout = Layout.identity(len(layout.axes))
    return Demand(inputs={node.inputs[0]: layout}, outputs=_outputs(node, graph, layout))


@kind(
    "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Sum", "Where", "Equal", "Less", "LessOrEqual", "Greater",
    "GreaterOrEqual", "And", "Or", "Xor", "Mod", "PRelu", "Clip", "Concat", "BitwiseAnd", "BitwiseOr", "BitwiseXor",
    "BitShift", "translator::Atan2",
)  # fmt: skip
def _together(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    """Inputs of full rank agree on the layout that most of them have; lower ranks come in PyTorch's order."""
    rank = len(graph.shapes[node.outputs[0]])
    full = [have[v] for v in have if graph.rank(v) == rank]
    flat = [v for v in full if v.view is None]
    mixed = len(flat) != len(full) and len(have) > 1
    layout = _majority(flat if mixed or not full else full, rank)
    if layout.view is not None and any(not graph.is_runtime(v) and graph.rank(v) > 0 for v in node.inputs if v):
        layout = Layout.identity(rank)
    wanted = {v: layout if graph.rank(v) == rank else Layout.identity(graph.rank(v)) for v in have}
    return Demand(inputs=wanted, outputs=_outputs(node, graph, layout))


@kind("translator::Replace")
def _replace(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    """A part along an axis, in the layout that both have, but flattened by none."""
    wanted = _together(node, have, graph)
    return wanted if wanted.outputs[0].view is None else _own_order(node, have, graph)


def _majority(layouts: list[Layout], rank: int) -> Layout:
    if not layouts:
        return Layout.identity(rank)
    counts = Counter(layouts)
    best = max(counts.values())
    chosen = [layout for layout in layouts if counts[layout] == best]
    return next((layout for layout in chosen if not layout.is_identity), chosen[0])


@kind(
    "Softmax", "LogSoftmax", "Pad", "Slice", "Split", "CumSum", "CumProd", "Tile", "Trilu", "LpNormalization",
    "Hardmax", "MeanVarianceNormalization", "translator::Roll", "translator::ChannelShuffle",
)  # fmt: skip
def _axis(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    """Works along axes that are simply renumbered."""
    value = node.inputs[0]
    if value not in have:
        return _own_order(node, have, graph)
    layout = have[value] if have[value].view is None else Layout.identity(graph.rank(value))
    if node.op == "Trilu":
        layout = Layout.identity(graph.rank(value))
    wanted = {v: Layout.identity(graph.rank(v)) for v in have} | {value: layout}
    return Demand(inputs=wanted, outputs=_outputs(node, graph, layout))


@kind("LayerNormalization", "RMSNormalization")
def _layer_norm(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    """Where weights make it a layer of Keras, not along inner axes."""
    value, rank = node.inputs[0], graph.rank(node.inputs[0])
    if any(v in have for v in node.inputs[1:]):
        return _own_order(node, have, graph)
    renumbered = _axis(node, {value: have[value]}, graph)
    axes = sorted(renumbered.inputs[value].axis(a) for a in range(node.attr("axis", -1) % rank, rank))
    layer = graph.is_runtime(value) and any(v in graph.derived for v in node.inputs[1:])
    return _own_order(node, have, graph) if layer and inner(axes, rank) else renumbered


@kind("Transpose")
def _transpose(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    """A transpose renames axes and moves nothing."""
    value = node.inputs[0]
    layout = have[value] if have[value].view is None else Layout.identity(graph.rank(value))
    perm = node.attr("perm") or tuple(reversed(range(graph.rank(value))))
    return Demand(inputs={value: layout}, outputs=(transposed(layout, perm),))


@kind("Reshape", "Flatten")
def _reshape(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    value, out = node.inputs[0], node.outputs[0]
    before, after = graph.shapes[value], graph.shapes[out]
    layout = have[value]
    if layout.view is None:
        free = reshaped(layout, before, after)
        if free is not None:
            return Demand(inputs={value: layout}, outputs=(free,))
        if len(after) == 2 and before[0] == after[0] and layout.axes[0] == 0 and _absorbed(out, graph):
            return Demand(inputs={value: layout}, outputs=(Layout(axes=layout.axes, view=graph.shape(value)),))
    own = Layout.identity(len(before))
    if prefers_channels_last(out, graph):
        last = Layout.channels_last(len(after))
        source = reshaped(last, after, before)
        if source is not None and reshaped(source, before, after) == last:
            return Demand(inputs={value: source}, outputs=(last,))
    return Demand(inputs={value: own}, outputs=(reshaped(own, before, after) or Layout.identity(len(after)),))


def prefers_channels_last(value: str, graph: Graph) -> bool:
    """Whether a convolution or pooling reads the value, at once or after ops that keep the layout."""
    if graph.rank(value) not in (3, 4, 5):
        return False
    return _leads_to(
        value,
        graph,
        through=(_unary, _together, _axis, _batch_norm),
        goal=lambda node, name: KINDS.get(node.key) is _spatial and node.inputs[0] == name,
    )


def _leads_to(value: str, graph: Graph, *, through: Collection[Kind], goal: Callable[[NodeView, str], bool]) -> bool:
    """Whether a node that fits `goal` reads the value, at once or after a few ops of kinds that keep the layout."""
    rank, seen, wave = graph.rank(value), {value}, [value]
    consumers = graph.consumers()
    for _ in range(_LOOK_AHEAD):
        following = []
        for name in wave:
            for node in consumers.get(name, ()):
                if goal(node, name):
                    return True
                if KINDS.get(node.key) in through and graph.rank(node.outputs[0]) == rank:
                    following += [o for o in node.outputs if o not in seen]
        seen.update(following)
        wave = following
    return False


def _laid_as_kernel(node: NodeView, graph: Graph) -> dict[str, Layout]:
    """The parameters that a node reads, as Keras' kernels lie, where what it makes of them becomes a kernel."""
    rank = graph.rank(node.outputs[0])
    weights = [v for v in dict.fromkeys(node.inputs) if v in graph.derived and graph.rank(v) == rank]
    if rank not in (3, 4, 5) or not weights:
        return {}
    for convolution in ("Conv", "ConvTranspose"):
        if _becomes_kernel_of(convolution, node.outputs[0], graph):
            return dict.fromkeys(weights, _KERNELS[convolution](rank))
    return {}


def _becomes_kernel_of(convolution: str, value: str, graph: Graph) -> bool:
    return _leads_to(
        value,
        graph,
        through=_KEEPING,
        goal=lambda reader, name: reader.key == convolution and reader.inputs[1] == name,
    )


_KERNELS: Mapping[str, Callable[[int], Layout]] = {"Conv": Layout.kernel, "ConvTranspose": Layout.transposed_kernel}


def _absorbed(value: str, graph: Graph) -> bool:
    """Whether every reader of a flattened tensor is a Linear (its kernel's rows absorb the order) or element-wise."""
    if value in graph.outputs:
        return False
    readers = [n for n in graph.nodes if value in n.inputs]
    for node in readers:
        linear = node.op in ("Gemm", "Linear") and node.inputs[0] == value and node.inputs[1] in graph.derived
        if linear and not node.attr("transA", 0):
            continue
        if KINDS.get(node.key) is _unary and _absorbed(node.outputs[0], graph):
            continue
        return False
    return bool(readers)


@kind(
    "Squeeze", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceLogSumExp", "ReduceSumSquare", "ReduceLogSum", "ArgMax", "ArgMin",
)  # fmt: skip
def _drop(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    value = node.inputs[0]
    layout = have[value] if have[value].view is None else Layout.identity(graph.rank(value))
    rank = graph.rank(value)
    axes = removed_axes(node, graph)
    if node.op != "Squeeze" and node.attr("keepdims", 1):
        return Demand(inputs={value: layout}, outputs=(layout,))
    return Demand(inputs={value: layout}, outputs=(dropped(layout, [a % rank for a in axes]),))


def removed_axes(node: NodeView, graph: Graph) -> tuple[int, ...]:
    """The axes, in PyTorch's order, that a Squeeze, Reduce or Arg op works on."""
    rank = graph.rank(node.inputs[0])
    if node.op in ("ArgMax", "ArgMin"):
        return (node.attr("axis", 0) % rank,)
    if node.has(1) and node.inputs[1] not in graph.constants:
        raise node.unsupported("the axes are computed at run time", reason="data-dependent-shape")
    given = integers(graph.constants[node.inputs[1]]) if node.has(1) else node.attr("axes")
    if given:
        return tuple(int(a) % rank for a in given)
    if node.op == "Squeeze":
        return tuple(i for i, d in enumerate(graph.shapes[node.inputs[0]]) if d == 1)
    return () if node.attr("noop_with_empty_axes", 0) else tuple(range(rank))


@kind("Unsqueeze")
def _insert(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    value = node.inputs[0]
    layout = have[value] if have[value].view is None else Layout.identity(graph.rank(value))
    return Demand(inputs={value: layout}, outputs=(inserted(layout, new_axes(node, graph)),))


def new_axes(node: NodeView, graph: Graph) -> list[int]:
    """The axes of its result that an Unsqueeze adds."""
    if node.has(1) and node.inputs[1] not in graph.constants:
        raise node.unsupported("the axes are computed at run time", reason="data-dependent-shape")
    given = integers(graph.constants[node.inputs[1]]) if node.has(1) else node.attr("axes")
    return [int(a) % len(graph.shapes[node.outputs[0]]) for a in given]


@kind("Gather")
def _gather(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    """A scalar index drops the axis; a list of constant indices keeps it; anything else in PyTorch's order."""
    value, index = node.inputs[0], node.inputs[1]
    if value not in have or index not in graph.constants or have[value].view is not None:
        return _own_order(node, have, graph)
    layout, axis = have[value], node.attr("axis", 0) % graph.rank(value)
    rank = graph.constants[index].ndim
    if rank == 0:
        return Demand(inputs={value: layout}, outputs=(dropped(layout, [axis]),))
    return Demand(inputs={value: layout}, outputs=(layout,)) if rank == 1 else _own_order(node, have, graph)


@kind("Gemm", "translator::Linear")
def _gemm(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    """A Linear absorbs a flattened order in its kernel's rows; its input's features are on the last axis."""
    value = node.inputs[0]
    rank = graph.rank(value)
    layout = have.get(value, Layout.identity(rank))
    if node.op == "Linear" and layout.view is None and layout.axes[-1] == rank - 1:
        return Demand(inputs={value: layout}, outputs=(layout,))
    if layout.view is None or node.inputs[1] not in graph.derived or node.attr("transA", 0):
        layout = Layout.identity(rank)
    wanted = {v: Layout.identity(graph.rank(v)) for v in have} | ({value: layout} if value in have else {})
    return Demand(inputs=wanted, outputs=(Layout.identity(len(graph.shapes[node.outputs[0]])),))


@kind("Expand")
def _expand(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    """An expansion that adds no axis keeps the layout."""
    same = len(graph.shapes[node.outputs[0]]) == graph.rank(node.inputs[0])
    return _axis(node, have, graph) if same else _own_order(node, have, graph)


@kind("LSTM", "GRU", "RNN")
def _recurrent(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    """ONNX' recurrent layers have the sequence first, Keras' the batch: X and Y lie batch first."""
    wanted = {v: Layout.identity(graph.rank(v)) for v in have} | {node.inputs[0]: Layout(axes=(1, 0, 2))}
    states = tuple(Layout.identity(3) for _ in node.outputs[1:])
    return Demand(inputs=wanted, outputs=(Layout(axes=(2, 0, 1, 3)), *states))


@kind("Einsum")
def _einsum(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    """Operands come as they lie; the result in PyTorch's order. An ellipsis wants everything in PyTorch's order."""
    if "..." in str(node.attr("equation")):
        return _own_order(node, have, graph)
    wanted = {v: (a if a.view is None else Layout.identity(len(a.axes))) for v, a in have.items()}
    return Demand(inputs=wanted, outputs=(Layout.identity(len(graph.shapes[node.outputs[0]])),))


@kind("MatMul")
def _matmul(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    """einsum multiplies operands of any layout; the result comes in the first operand's where ranks agree."""
    rank = len(graph.shapes[node.outputs[0]])
    if len({graph.shapes[v][:-2] for v in node.inputs}) > 1:
        return _own_order(node, have, graph)
    wanted = {v: (a if a.view is None else Layout.identity(len(a.axes))) for v, a in have.items()}
    first = wanted.get(node.inputs[0])
    out = first if first is not None and len(first.axes) == rank else Layout.identity(rank)
    return Demand(inputs=wanted, outputs=(out,))


@kind("translator::Attention")
def _attention(node: NodeView, have: Mapping[str, Layout], graph: Graph) -> Demand:
    """keras.ops.dot_product_attention wants (batch, time, head, feature), PyTorch has (batch, head, time, feature)."""
    if not as_keras_has_it(node, graph):
        return _own_order(node, have, graph)
    layout = Layout(axes=(0, 2, 1, 3))
    wanted = {v: layout for v in node.inputs[:3] if v in have}
    wanted |= {v: Layout.identity(graph.rank(v)) for v in node.inputs[3:] if v in have}
    return Demand(inputs=wanted, outputs=(layout,))


def as_keras_has_it(node: NodeView, graph: Graph) -> bool:
    """Whether an attention is one of Keras': four axes, values as wide as queries, and nothing that is broadcast."""
    query, key, value = (graph.shapes[v] for v in node.inputs[:3])
    if not len(query) == len(key) == len(value) == 4:
        return False
    rows = [shape[0] == 1 for shape in (query, key, value)]
    return query[-1] == value[-1] and query[1] == key[1] == value[1] and len(set(rows)) == 1


_MANY = frozenset({_spatial, _together, _replace, _matmul, _einsum, _gather, _attention, _own_order})
"""Kinds that look after inputs which don't depend on the model's input themselves."""

_KEEPING = frozenset({_unary, _together, _axis, _layer_norm, _drop})
"""Kinds whose result lies as their inputs do, as long as it has as many axes."""
