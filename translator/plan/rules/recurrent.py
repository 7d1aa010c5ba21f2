"""Recurrent layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from translator.graph import derive
from translator.graph.derive import Derived
from translator.graph.view import NodeView
from translator.plan.calls import Arg, LayerSpec, Ref
from translator.plan.context import PlanContext
from translator.plan.naming import snake
from translator.plan.registry import rule

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_KERAS_ORDER = {"LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2), "RNN": (0,)}
"""Keras' gates (i f c o; z r h; one) by their place in PyTorch's order (i f g o; r z n; one)."""

_FROM_ONNX = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""PyTorch's gates by their place in ONNX' order (i o f c; z r h; one)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """The weights of one direction, gates in PyTorch's order: kernel (G·H, in), recurrent (G·H, H), biases (G·H,)."""

    kernel: Derived
    recurrent: Derived
    biases: tuple[Derived, ...] = ()


@rule("translator::LSTM", "translator::GRU", "translator::RNN", keras="LSTM, GRU, SimpleRNN")
def recurrent(node: NodeView, ctx: PlanContext) -> tuple[Ref, ...]:
    """Plan one layer of an LSTM, GRU or RNN in one or both directions.

    Shapes: x (B, T, in) → (B, T, D·H), last states (D, B, H). PyTorch's two biases are their sum in an LSTM and a
    SimpleRNN (how="sum"), and the two rows of a GRU's bias. Source: torch.nn.LSTM; Keras 3 LSTM, GRU(reset_after=True).
    """
    directions, per = node.attr("directions"), 4 if node.attr("bias") else 2
    weights = [_param(node, ctx, i) for i in range(1, 1 + directions * per)]
    parts = [Direction(kernel=w[0], recurrent=w[1], biases=tuple(w[2:])) for w in _chunks(weights, per)]
    first = 1 + directions * per
    given = [ctx.arg(node, i, like=i) for i in range(first, len(node.inputs))]
    layers = _Layers(
        node=node, ctx=ctx, kind=node.op, hidden=node.attr("hidden"), activation=node.attr("nonlinearity", "tanh"),
        role="" if node.attr("single") else f"l{node.attr('layer')}", bias=bool(node.attr("bias")),
    )  # fmt: skip
    y, states = layers.run(ctx.arg(node), parts, given)
    return (y, *states)


@rule("LSTM", "GRU", "RNN", since=7, keras="LSTM, GRU, SimpleRNN")
def onnx_recurrent(node: NodeView, ctx: PlanContext) -> tuple[Ref, ...]:
    """Plan ONNX' recurrent layers: sequence first, W (D, G·H, in), R (D, G·H, H), B (D, 2·G·H), gates in ONNX' order.

    Shapes: X (T, B, in) → Y (T, D, B, H), Y_h and Y_c (D, B, H).
    Raises: UnsupportedError for sequence lengths, peepholes, clipping, other activations, or linear_before_reset=0.
    Source: ONNX LSTM-22, GRU-22, RNN-22.
    """
    _refuse(node, ctx)
    hidden, kind = node.attr("hidden_size"), node.op
    directions = 2 if node.attr("direction", "forward") == "bidirectional" else 1
    parts = [_onnx_direction(node, ctx, d, hidden) for d in range(directions)]
    states = [ctx.arg(node, i, like=i) for i in (5, 6) if node.has(i)]
    activations = node.attr("activations") or ()
    layers = _Layers(
        node=node, ctx=ctx, kind=kind, hidden=hidden, role="", bias=node.has(3),
        reverse=node.attr("direction", "forward") == "reverse",
        activation=str(activations[0]).lower() if kind == "RNN" and activations else "tanh",
    )  # fmt: skip
    y, ends = layers.run(ctx.arg(node, 0), parts, states)
    shape = (-1, ctx.shape(node.inputs[0])[0] or -1, directions, hidden)
    return (ctx.op(node, "reshape", y, shape, role="directions"), *ends)


def _refuse(node: NodeView, ctx: PlanContext) -> None:
    zero = [i for i in (4, 7) if node.has(i)]
    if zero:
        raise node.unsupported("sequence lengths or peepholes")
    if node.attr("clip") or node.attr("input_forget", 0) or node.attr("layout", 0):
        raise node.unsupported("clip, input_forget or layout=1")
    if node.op == "GRU" and not node.attr("linear_before_reset", 0):
        raise node.unsupported("linear_before_reset=0", fix="PyTorch exports linear_before_reset=1")
    default = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}[node.op]
    given = tuple(node.attr("activations") or ())
    if given and node.op != "RNN" and given[: len(default)] != default:
        raise node.unsupported(f"activations {', '.join(given)}")
    if node.op == "RNN" and given and given[0] not in ("Tanh", "Relu"):
        raise node.unsupported(f"activations {', '.join(given)}")


def _onnx_direction(node: NodeView, ctx: PlanContext, index: int, hidden: int) -> Direction:
    gates, order = _GATES[node.op], _FROM_ONNX[node.op]
    kernel, recurrent_kernel = (_of_direction(_param(node, ctx, i), index, order, hidden, node) for i in (1, 2))
    both: list[Derived] = []
    if node.has(3):
        second = tuple(g + gates for g in order)
        both = [_of_direction(_param(node, ctx, 3), index, gs, hidden, node) for gs in (order, second)]
    return Direction(kernel=kernel, recurrent=recurrent_kernel, biases=tuple(both))


def _of_direction(weight: Derived, index: int, order: tuple[int, ...], hidden: int, node: NodeView) -> Derived:
    """The gates of one direction, blocks of `hidden` rows along axis 1, in another order."""
    rest, width = weight.shape[2:], len(order) * hidden
    first = [(g * hidden, (g + 1) * hidden) for g in order]
    if order == tuple(range(order[0], order[0] + len(order))):
        first = [(first[0][0], first[-1][1])]
    blocks = [weight.slice((index, a, *(0 for _ in rest)), (index + 1, b, *rest)) for a, b in first]
    found = [block for block in blocks if block is not None]
    joined = derive.concat(found, 1) if len(found) > 1 else found[0] if found else None
    if joined is None or len(found) != len(blocks):
        raise node.unsupported("weights that are computed at run time")
    return joined.reshape((width, *rest))


def _cut(weight: Derived, start: int, stop: int, node: NodeView) -> Derived:
    part = weight.slice((start, *(0 for _ in weight.shape[1:])), (stop, *weight.shape[1:]))
    if part is None:
        raise node.unsupported("weights that are computed at run time")
    return part


def _gates(weight: Derived, order: tuple[int, ...], hidden: int, node: NodeView) -> Derived:
    """The gates, blocks of `hidden` rows, in another order."""
    if order == tuple(range(len(order))):
        return weight
    blocks = [_cut(weight, g * hidden, (g + 1) * hidden, node) for g in order]
    joined = derive.concat(blocks, 0)
    if joined is None:
        raise node.unsupported("weights that are computed at run time")
    return joined


def _param(node: NodeView, ctx: PlanContext, index: int) -> Derived:
    found = ctx.param(node, index)
    if found is None:
        raise node.unsupported(f"input {index} isn't a parameter", fix="use plain parameters as weights")
    return found


def _chunks(items: list[Derived], size: int) -> list[list[Derived]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


@dataclass(slots=True, kw_only=True)
class _Layers:
    """Adds the Keras layers of one recurrent layer to the plan."""

    node: NodeView
    ctx: PlanContext
    kind: str
    hidden: int
    activation: str
    role: str
    bias: bool
    reverse: bool = False

    def run(self, x: Arg, parts: list[Direction], given: list[Arg]) -> tuple[Ref, list[Ref]]:
        """(B, T, D·H) and the last states (D, B, H), which are made only where something reads them."""
        both = len(parts) == 2
        wanted = any(read(self.ctx, name) for name in self.node.outputs[1:])
        count = 2 if self.kind == "LSTM" else 1
        cls, config = self._config(states=wanted)
        weights = self._weights(parts[0], "cell")
        if both:
            inner = LayerSpec(name=snake(cls), cls=cls, config=config)
            cls, config = "Bidirectional", {"layer": inner, "merge_mode": "concat"}
            weights = self._weights(parts[0], "forward_layer.cell") | self._weights(parts[1], "backward_layer.cell")
        start = [self._state(s, d, len(parts)) for d in range(len(parts)) for s in given]
        y, *last = self.ctx.layer_several(
            self.node, cls, config, weights, (x,), outputs=1 + count * len(parts) * wanted, role=self.role,
            kwargs={"initial_state": start if len(start) > 1 else start[0]} if start else {},
        )  # fmt: skip
        if self.reverse:
            y = self.ctx.op(self.node, "flip", y, axis=1, role=self._name("forward_again"))
        if not wanted:
            return y, []
        ends = [last[i::count] for i in range(count)]
        return y, [self.ctx.op(self.node, "stack", e, axis=0, role=self._name("state")) for e in ends]

    def _config(self, *, states: bool) -> tuple[str, dict[str, Any]]:
        config: dict[str, Any] = {"units": self.hidden, "return_sequences": True, "use_bias": self.bias}
        config |= {"return_state": True} if states else {}
        config |= {"go_backwards": True} if self.reverse else {}
        if self.kind == "RNN":
            return "SimpleRNN", config | {"activation": self.activation}
        return self.kind, config | ({"reset_after": True} if self.kind == "GRU" else {})

    def _weights(self, part: Direction, cell: str) -> dict[str, Derived]:
        order = _KERAS_ORDER[self.kind]
        kernel, recurrent_kernel, *biases = (
            _gates(w, order, self.hidden, self.node) for w in (part.kernel, part.recurrent, *part.biases)
        )
        weights = {
            f"{cell}.kernel": kernel.permute((1, 0)),
            f"{cell}.recurrent_kernel": recurrent_kernel.permute((1, 0)),
        }
        if biases:
            joined = derive.concat(biases, 0) if self.kind == "GRU" else derive.total(*biases)
            if joined is None:
                raise self.node.unsupported("biases that are computed at run time")
            weights[f"{cell}.bias"] = joined.reshape((2, 3 * self.hidden)) if self.kind == "GRU" else joined
        return weights

    def _state(self, state: Arg, index: int, directions: int) -> Arg:
        """The initial state of one direction, (B, H)."""
        if directions == 1:
            return self.ctx.op(self.node, "squeeze", state, 0, role=self._name("start"))
        key = (index, slice(None), slice(None))
        return self.ctx.op(self.node, "get_item", state, key, role=self._name("start"))

    def _name(self, role: str) -> str:
        return "_".join(part for part in (self.role, role) if part)


def read(ctx: PlanContext, name: str) -> bool:
    """Whether anything reads the value."""
    return bool(name) and (name in ctx.graph.outputs or bool(ctx.graph.consumers().get(name)))
