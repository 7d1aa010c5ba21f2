"""Graph and layouts → plan: one rule per node, in order of computation."""

from __future__ import annotations

from collections.abc import Mapping

from translator.errors import UnsupportedError
from translator.graph.view import Graph, NodeView, Ports
from translator.layout.assign import Assignment
from translator.plan.calls import ModuleCall, Plan, Ref, ValueInfo
from translator.plan.context import PlanContext
from translator.plan.materialise import free_weight, held_exactly
from translator.plan.naming import Namer, clean
from translator.plan.registry import load_rules
from translator.types import Layout, Origin, PutOut, Shape


def build_plan(
    graph: Graph,
    assignment: Assignment,
    *,
    name: str,
    tensors: Mapping[str, tuple[tuple[int, ...], bool]],
    aliases: Mapping[str, str],
    put_out: PutOut | None = None,
) -> Plan:
    """The plan of a graph. Raises UnsupportedError for the first node that no rule takes, with all others listed.

    put_out: the shapes of what module calls put out, where they are known.
    """
    rules = load_rules()
    _refuse_unknown(graph, set(rules))
    namer = Namer(graph)
    context = PlanContext(graph, assignment, namer)
    for value in graph.inputs:
        context.values[value] = Ref(namer.unique(clean(value)))
    for node in graph.nodes:
        _plan_node(node, context, rules[node.key].function)
    outputs = tuple((name, _output(name, context)) for name in graph.outputs)
    return Plan(
        name=clean(name),
        inputs=tuple((value, context.values[value].value) for value in graph.inputs),
        outputs=outputs,
        layers=tuple(context.layers.values()),
        calls=tuple(context.calls),
        values=_values(context, outputs),
        module_calls=tuple(_module_calls(graph, context, put_out or {})),
        tensor_shapes={tensor: shape for tensor, (shape, _) in tensors.items()},
        aliases=dict(aliases),
        output_layouts=tuple(_output_layout(value, context) for value in graph.outputs),
        lost=tuple(dict.fromkeys(context.lost)),
        notes=tuple(dict.fromkeys(context.notes)),
    )


def _refuse_unknown(graph: Graph, known: set[str]) -> None:
    unknown = [node for node in graph.nodes if node.key not in known]
    if not unknown:
        return
    first = unknown[0]
    others = sorted({node.key for node in unknown} - {first.key})
    more = f" (also not supported in this model: {', '.join(others)})" if others else ""
    raise UnsupportedError(
        f"{first.key} isn't supported{more}",
        reason="op",
        where=first.where,
        fix="see `translator ops`; a rule of your own can add it (docs/adding-an-op.md)",
    )


def _plan_node(node: NodeView, context: PlanContext, function: object) -> None:
    planned = function(node, context)  # type: ignore[operator]
    refs = planned if isinstance(planned, tuple) else (planned,)
    for value, ref in zip(node.outputs, refs, strict=False):
        if value in context.graph.shapes:
            context.values[value] = ref


def _output(name: str, context: PlanContext) -> str:
    if name not in context.values:
        _constant_output(name, context)
    have, want = context.assignment.layouts.get(name), context.assignment.outputs.get(name)
    if have is None or want is None or have == want:
        return context.values[name].value
    node = context.graph.producers()[name]
    return context.move(context.values[name], have, want, context.shape(name), node).value


def _output_layout(name: str, context: PlanContext) -> Layout:
    return context.assignment.outputs.get(name) or Layout.identity(context.rank(name))


def _constant_output(name: str, context: PlanContext) -> None:
    """An output that doesn't depend on the input's numbers: a weight of the model's own."""
    graph = context.graph
    node = NodeView(op="Constant", domain="", inputs=(), outputs=(name,), attributes={}, origin=Origin(node=name))
    source = graph.derived.get(name)
    array = graph.constants.get(name)
    if (source is None and array is None) or (array is not None and (array.dtype == object or not array.size)):
        raise UnsupportedError(
            f"output {name} is a size that isn't known before the model runs",
            reason="data-dependent-shape",
            fix="leave it out of the model's outputs",
        )
    held = source if source is not None else held_exactly(array, context.dtype(name))  # type: ignore[arg-type]
    context.values[name] = free_weight(context, node, name, held)
    if array is not None and array.dtype.kind in "iu":
        context.values[name] = context.op(node, "cast", context.values[name], context.dtype(name), role="constant")


def _values(context: PlanContext, outputs: tuple[tuple[str, str], ...]) -> dict[str, ValueInfo]:
    """What flows, by the plan's name; a value that is several tensors of PyTorch is described as the first of them."""
    found: dict[str, ValueInfo] = {}
    at = context.assignment.layouts
    named = [(value, ref.value, at[value]) for value, ref in context.values.items() if value in at]
    named += [(value, ref, _output_layout(value, context)) for value, ref in outputs]
    for value, ref, layout in named:
        found.setdefault(ref, ValueInfo(shape=context.shape(value), dtype=context.dtype(value), layout=layout))
    return found


def _module_calls(graph: Graph, context: PlanContext, put_out: PutOut) -> list[ModuleCall]:
    """Every module call that computed something: the values that came in from outside, and those that went out.

    Where more values are read outside than the one that it put out, its output is the first of that one's shape.
    """
    inside: dict[tuple[str, int, str], list[NodeView]] = {}
    for node in graph.nodes:
        for scope in node.origin.scopes:
            inside.setdefault(scope, []).append(node)
    consumers = graph.consumers()
    calls = []
    for (path, call, cls), nodes in inside.items():
        own = {id(n) for n in nodes}
        made = [v for n in nodes for v in n.outputs if v]
        made_set = set(made)
        read = dict.fromkeys(v for n in nodes for v in graph.runtime_inputs(n) if v not in made_set)
        left = [v for v in made if v in graph.outputs or any(id(c) not in own for c in consumers.get(v, ()))]
        ports = graph.ports.get((path, call), Ports())
        inputs, outputs = ports.inputs or tuple(read), ports.outputs or tuple(left)
        shapes = put_out.get((path, call), ())
        if len(shapes) == 1 < len(outputs) and not ports.outputs:
            outputs = tuple(v for v in left if _fits(context.shape(v), shapes[0]))[:1] or outputs
        if ports.outputs == ("",):  # nobody reads what it puts out, only what it gave to others on the way
            continue
        calls.append(
            ModuleCall(
                path=path, call=call, cls=cls,
                inputs=tuple(_named(v, context) for v in inputs),
                outputs=tuple(_named(v, context) for v in outputs),
                input_layouts=tuple(context.assignment.layouts.get(v, Layout(axes=())) for v in inputs),
                output_layouts=tuple(context.assignment.layouts.get(v, Layout(axes=())) for v in outputs),
                arguments=ports.arguments,
            )
        )  # fmt: skip
    return calls


def _fits(shape: Shape, other: Shape) -> bool:
    """Whether two shapes are the same, as far as their sizes are known."""
    return len(shape) == len(other) and all(a == b or None in (a, b) for a, b in zip(shape, other, strict=True))


def _named(value: str, context: PlanContext) -> str:
    """The plan's name of a value; "" for one that doesn't depend on the model's input."""
    return context.values[value].value if value in context.values else ""
