"""The sequential style: a chain of layers as `keras.Sequential`, with Sequentials inside it as in PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from translator.emit.source.align import template_of
from translator.emit.source.fold import Program
from translator.emit.source.items import Body, Reader
from translator.emit.source.listing import Listing
from translator.emit.source.names import RESERVED
from translator.emit.source.program import LayerStatement
from translator.emit.source.render import indented, layer_call, name_code
from translator.emit.source.top import Top
from translator.emit.source.tree import Node, build_tree, dissolve, live_calls, reads
from translator.emit.source.write import function_of
from translator.errors import UnsupportedError, Where
from translator.plan.calls import Call, LayerCall, OpCall, Plan, Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The layers in order as a program of one function, and of each the Sequentials around it, from the outside in."""

    program: Program
    inside: tuple[tuple[str, ...], ...]


def chain_of(plan: Plan) -> Chain:
    """The chain that a plan is. Raises UnsupportedError, which names the first branch, where it is none."""
    calls = live_calls(plan)
    _refuse_branches(plan, calls)
    root = build_tree(plan, nested=True)
    inside: dict[int, tuple[str, ...]] = {}
    _enclosing(root, (), inside)
    for node in root.nodes():
        node.nested = ""
    dissolve(root, lambda node: True)
    readers: dict[str, list[Call]] = {}
    for call in calls:
        for value in reads(call):
            readers.setdefault(value, []).append(call)
    found = Reader(plan, readers).body(root)
    body = Body(node=root, items=found.items, inputs=(plan.inputs[0][1],), outputs=(plan.outputs[0][1],))
    function, _ = function_of(
        template_of([body]), name="build_model", inputs=("x",), reserved=set(RESERVED), keep_inputs=False
    )
    function.prefixed = False
    return Chain(program=Program(functions=(), root=function), inside=tuple(inside[id(c)] for c in root.calls()))


def sequential(program: Program, inside: tuple[tuple[str, ...], ...], top: Top, listing: Listing) -> str:
    """The text of a chain, without header and imports."""
    layers = [s for s in program.root.body if isinstance(s, LayerStatement)]
    lines = [f"{top.input_call()},", *_list(list(zip(inside, layers, strict=True)), 0)]
    body = [
        f'"""{top.doc}"""',
        *(f"{variable} = {code}" for variable, code in program.root.locals),
        f"return {top.class_name if listing.property() else 'keras.Sequential'}(",
        *indented(["[", *indented(lines), "],", f"name={top.name},"]),
        ")",
    ]
    build = [f"def build_model({', '.join(top.parameters)}):", *indented(body)]
    return "\n".join([*_class(top, listing), *build]) + "\n"


def _class(top: Top, listing: Listing) -> list[str]:
    """A Sequential that lists the layers of the Sequentials in it; nothing where there are none."""
    if not listing.property():
        return []
    head = [
        f"@keras.saving.register_keras_serializable(package={top.name})",
        f"class {top.class_name}(keras.Sequential):",
        f'    """The network `{top.plan.name}`."""',
        "",
    ]
    return [*listing.function(), "", "", *head, *indented(listing.property()), "", ""]


def _list(pairs: list[tuple[tuple[str, ...], LayerStatement]], depth: int) -> list[str]:
    lines: list[str] = []
    at = 0
    while at < len(pairs):
        inside, statement = pairs[at]
        if len(inside) <= depth:
            note = [statement.note] if statement.note else []
            lines += [*note, f"{layer_call(statement, name_code(statement.rel, name=None))},"]
            at += 1
            continue
        stop = at
        while stop < len(pairs) and pairs[stop][0][: depth + 1] == inside[: depth + 1]:
            stop += 1
        inner = _list(pairs[at:stop], depth + 1)
        lines += ["keras.Sequential(", *indented(["[", *indented(inner), "],", f'name="{inside[depth]}",']), "),"]
        at = stop
    return lines


def _enclosing(node: Node, around: tuple[str, ...], found: dict[int, tuple[str, ...]]) -> None:
    for item in node.items:
        if not isinstance(item, Node):
            found[id(item)] = around
            continue
        module, _, simple = item.cls.rpartition(".")
        nests = item.nested or (module.startswith("torch.nn") and simple == "Sequential")
        _enclosing(item, (*around, item.nested or item.prefix) if nests else around, found)


def _refuse_branches(plan: Plan, calls: list[Call]) -> None:
    for what, values in (("inputs", plan.inputs), ("outputs", plan.outputs)):
        if len(values) != 1:
            raise _refusal(plan, f"it has {len(values)} {what}: {', '.join(name for name, _ in values)}", None)
    readers: dict[str, list[Call]] = {}
    for call in calls:
        for value in dict.fromkeys(reads(call)):
            readers.setdefault(value, []).append(call)
    for value in (plan.inputs[0][1], *(v for call in calls for v in call.outputs)):
        found = readers.get(value, [])
        if len(found) > 1 or (found and value == plan.outputs[0][1]):
            names = (
                " and ".join(f"`{_name(c)}`" for c in found[:2])
                if len(found) > 1
                else f"`{_name(found[0])}` and the output"
            )
            raise _refusal(plan, f"its first branch is after `{value}`, which {names} read", found[-1])
    seen: set[str] = set()
    for call in calls:
        if isinstance(call, OpCall):
            raise _refusal(plan, f"`{call.name}` is the operation keras.ops.{call.op}, not a layer", call)
        if call.layer in seen:
            raise _refusal(plan, f"`{call.layer}` is called twice", call)
        seen.add(call.layer)
        if len(call.args) != 1 or not isinstance(call.args[0], Ref) or call.kwargs or len(call.outputs) != 1:
            raise _refusal(plan, f"`{call.layer}` takes or gives more than one tensor", call)


def _name(call: Call) -> str:
    return call.layer if isinstance(call, LayerCall) else call.name


def _refusal(plan: Plan, why: str, call: Call | None) -> UnsupportedError:
    origin = call.origin if call is not None else None
    where = (
        Where() if origin is None else Where(module=origin.module or "(root)", source=origin.source, node=origin.node)
    )
    return UnsupportedError(
        f"{plan.name} is no chain of layers, so it can't be a keras.Sequential: {why}",
        reason="style",
        where=where,
        fix="--style functional writes any network, and so does --style subclass",
    )
