"""From a plan to a program: every class of the PyTorch model that is worth it becomes one function, written once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from translator.emit.source.align import Template, groups_of, template_of
from translator.emit.source.items import ALL, FIRST, Body, Reader
from translator.emit.source.names import OF_STAGES, RESERVED, free, snake
from translator.emit.source.program import Function
from translator.emit.source.repeated import mark_repeated
from translator.emit.source.roles import INDEX, input_names
from translator.emit.source.roll import as_loops, roll
from translator.emit.source.stages import roll_stages
from translator.emit.source.tree import Node, build_tree, dissolve, is_container, live_calls, reads
from translator.emit.source.write import function_of
from translator.plan.calls import Call, Plan, Ref

ALONE = 5
"""A class that is used once is a function of its own from this many statements on."""

SMALL = 3
"""PyTorch's own classes (Conv2d, GELU …) are written where they are used up to this many statements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Functions in the order in which they are defined, and the whole network as the last of them."""

    functions: tuple[Function, ...]
    root: Function

    @property
    def nested(self) -> bool:
        """Whether blocks are models of their own, because the network is too deep for one."""
        return any(f.nested for f in self.functions)


def fold(plan: Plan, *, symbolic: bool = True) -> Program:
    """The program of a plan. symbolic: for a Functional model, whose inputs are needed to the end, and whose blocks are
    models of their own where a flat one would be too deep.
    """
    root = build_tree(plan, nested=symbolic)
    readers: dict[str, list[Call]] = {}
    for call in live_calls(plan):
        for value in reads(call):
            readers.setdefault(value, []).append(call)
    mark_repeated(root, plan)
    dissolve(root, lambda node: is_container(node.cls) and not node.alike)
    work = _Folder(Reader(plan, readers), symbolic=symbolic)
    for nodes in _by_class(root):
        work.fold_class(nodes)
    body = work.reader.body(root)
    inputs = tuple(value for _, value in plan.inputs)
    outputs = tuple(value for _, value in plan.outputs)
    body = replace(body, inputs=inputs, outputs=outputs, items=roll_stages(roll(body.items, outputs), outputs))
    names = (
        ("inputs" if symbolic else "x",)
        if len(inputs) == 1
        else tuple(snake(f"{name}_input") for name, _ in plan.inputs)
    )
    function, _ = function_of(
        template_of([body]), name="build_model", inputs=names, reserved=work.names | RESERVED, keep_inputs=symbolic
    )
    function.prefixed = False
    return Program(functions=tuple(f for f in work.functions if f.uses), root=function)


class _Folder:
    def __init__(self, reader: Reader, *, symbolic: bool) -> None:
        self.reader, self._symbolic = reader, symbolic
        self.functions: list[Function] = []
        self.names: set[str] = set()

    def fold_class(self, nodes: Sequence[Node]) -> None:
        """Make functions of the calls of one class, where that is worth it."""
        bodies = [self.reader.body(node) for node in nodes]
        _share(bodies)
        _gather(bodies)
        for body in bodies:
            body.items = roll(body.items, body.outputs)
        as_loops([body.items for body in bodies])
        for group in groups_of(bodies):
            if _worth(group):
                self._function(group)

    def _function(self, bodies: list[Body]) -> None:
        cls = bodies[0].node.cls
        name = free(_name_of(bodies), self.names | RESERVED)
        self.names.add(name)
        template, inputs = _with_inputs(bodies, self.names | RESERVED)
        function, arguments = function_of(
            template,
            name=name,
            inputs=inputs,
            reserved=self.names | RESERVED - OF_STAGES,
            keep_inputs=False,
            sees_inputs=self._symbolic,
        )
        function.cls = "" if is_container(bodies[0].node.cls) else cls
        function.nested = bool(bodies[0].node.nested)
        function.prefixed = bool(bodies[0].node.prefix)
        function.uses = len(bodies)
        self.functions.append(function)
        for body, given in zip(bodies, arguments, strict=True):
            node = body.node
            node.function, node.arguments = function, given
            node.inputs, node.results, node.gathered = body.inputs, body.outputs, body.gathered
            if body.gathered:
                node.inputs = tuple(v for v in body.inputs)


def _with_inputs(bodies: list[Body], taken: Collection[str]) -> tuple[Template, tuple[str, ...]]:
    """The template of bodies and the names of its inputs; an index comes after what the block works on."""
    template = template_of(bodies)
    if bodies[0].gathered:
        return template, ("features",)
    inputs = input_names(template, taken)
    order = sorted(range(len(inputs)), key=lambda k: inputs[k] == INDEX)
    if order != list(range(len(inputs))):
        for body in bodies:
            body.inputs = tuple(body.inputs[k] for k in order)
        template = template_of(bodies)
    return template, tuple(inputs[k] for k in order)


def _worth(bodies: Sequence[Body]) -> bool:
    """Whether these calls become calls of a function; else they are written where they are."""
    node, most = bodies[0].node, max(len(body.items) for body in bodies)
    if node.nested:
        return True
    ours = node.cls.startswith("torch.nn") and not node.alike
    if not bodies[0].outputs:
        return False
    if len(bodies) == 1:
        return most >= ALONE and not ours
    return most > (SMALL if ours else 1)


def _kind(node: Node) -> str:
    """What must be equal for two nodes to be one function: the class, and of a container the place, too."""
    return f"{node.cls} {node.alike or _place_of(node)}" if is_container(node.cls) or not node.cls else node.cls


def _place_of(node: Node) -> str:
    return (node.parts[-1] if node.parts else "").rstrip("0123456789_.").lstrip("*") or "block"


def _name_of(bodies: Sequence[Body]) -> str:
    simple = bodies[0].node.cls.rpartition(".")[2]
    if simple and not is_container(bodies[0].node.cls):
        return snake(simple)
    places = {_place_of(body.node) for body in bodies}
    return snake(places.pop()) if len(places) == 1 else "block"


def _by_class(root: Node) -> list[list[Node]]:
    """All nodes by class, so that a class comes after those that it uses."""
    uses: dict[str, set[str]] = {}
    height: dict[int, int] = {}
    nodes = list(root.nodes())
    for node in nodes:
        inner = [n for n in node.items if isinstance(n, Node)]
        height[id(node)] = 1 + max((height[id(n)] for n in inner), default=0)
        uses.setdefault(_kind(node), set()).update(_kind(n) for n in inner)
    level = _levels(uses)
    order: dict[tuple[int, str], list[Node]] = {}
    for node in nodes:
        rank = height[id(node)] if level is None else level[_kind(node)]
        order.setdefault((rank, _kind(node)), []).append(node)
    return [order[key] for key in sorted(order, key=lambda k: k[0])]


def _levels(uses: dict[str, set[str]]) -> dict[str, int] | None:
    """How deep each class stands, those that use no other at 0; None where classes use each other in a circle."""
    level: dict[str, int] = {}
    while len(level) < len(uses):
        ready = [c for c, inner in uses.items() if c not in level and all(i in level for i in inner)]
        if not ready:
            return None
        level.update({c: 1 + max((level[i] for i in uses[c]), default=-1) for c in ready})
    return level


def _share(bodies: Sequence[Body]) -> None:
    """Write a layer that one call of a class calls again the same way in those that call it once."""
    again = {item.rel for body in bodies for item in body.items if item.shared}
    for body in bodies:
        for item in body.items:
            item.shared = item.shared or (item.kind == "layer" and item.rel in again)


def _gather(bodies: Iterable[Body]) -> None:
    """Where each call of a class takes a list of tensors, of any length, make the list its one input."""
    bodies = list(bodies)
    if len({len(body.inputs) for body in bodies}) == 1:
        return
    lists = [[Ref(v) for v in body.inputs] for body in bodies]
    places = [
        [(item, k) for item in body.items for k, arg in enumerate(item.args) if isinstance(arg, list) and arg == whole]
        for body, whole in zip(bodies, lists, strict=True)
    ]
    for body, found in zip(bodies, places, strict=True):
        count = sum(v in body.inputs for item in body.items for v in item.reads())
        if len(body.inputs) > 1 and not (len(found) == 1 and count == len(body.inputs)):
            return
        if not body.inputs or set(body.inputs) & set(body.outputs):
            return
    for body, found in zip(bodies, places, strict=True):
        body.gathered = True
        for item in body.items:
            if len(body.inputs) > 1:
                item.args = tuple(Ref(ALL) if (item, k) in found else a for k, a in enumerate(item.args))
            else:
                item.args = tuple(_first(a, body.inputs[0]) for a in item.args)


def _first(arg: object, value: str) -> object:
    if isinstance(arg, Ref):
        return Ref(FIRST) if arg.value == value else arg
    if isinstance(arg, list | tuple):
        return type(arg)(_first(a, value) for a in arg)
    return arg
