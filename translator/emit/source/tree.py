"""The PyTorch module tree, recovered from where each call of a plan came from.

A node is one call of one module; its items are calls of the plan and nodes of modules that it called, in order. Nodes
that can't stand as a function of their own are dissolved: their items become those of the node above.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from translator.emit.nesting import Block, is_deep, nest
from translator.emit.source.order import together
from translator.plan.calls import Call, LayerCall, OpCall, Plan, refs
from translator.plan.naming import clean

if TYPE_CHECKING:
    from translator.emit.source.program import Function


_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")


@dataclass(slots=True, kw_only=True, eq=False)
class Node:
    """One module call. prefix: what the names of its layers begin with. nested: it is a keras.Model of its own, of
    this name. parts: names of the modules on the way from the node above, for hints. whole: its calls stand together.
    alike: of a container without a class of its own, what those that are written as one function have in common.

    function, arguments, inputs, results: set where it has become a call of a function; gathered: the inputs are a list.
    """

    path: str
    call: int
    cls: str
    prefix: str
    parts: tuple[str, ...] = ()
    nested: str = ""
    whole: bool = True
    alike: str = ""
    items: list[Node | Call] = field(default_factory=list)
    function: Function | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    gathered: bool = False

    def calls(self) -> Iterator[Call]:
        """Every call inside, in order."""
        for item in self.items:
            if isinstance(item, Node):
                yield from item.calls()
            else:
                yield item

    def nodes(self) -> Iterator[Node]:
        """Every node inside, the deepest first."""
        for item in self.items:
            if isinstance(item, Node):
                yield from item.nodes()
                yield item


def build_tree(plan: Plan, *, nested: bool) -> Node:
    """The tree of a plan, without calls that no output needs. nested: cut very deep plans as the Keras model is cut."""
    live = live_calls(plan)
    if not (nested and is_deep(plan)):
        live = together(live, lambda call: [(path, n) for path, n, cls in _scopes(call) if not is_container(cls)])
    scopes = {id(call): _scopes(call) for call in live}
    names: dict[tuple[str, int], str] = {}
    if nested:
        for block, calls, level in _blocks(nest(plan)):
            inside = [c for c in calls if id(c) in scopes]
            here = _scope_of(block, inside, level)
            if here is None:
                here = (f"*{block.name}", 0, "")
                for call in inside:
                    scopes[id(call)].insert(level, here)
            names[here[0], here[1]] = block.name
    root = Node(path="", call=0, cls=_root_class(live), prefix="")
    seen: dict[tuple[int, str, int], Node] = {}
    for call in live:
        _place(root, call, scopes[id(call)], seen, names)
    dissolve(root, lambda node: not node.whole or not _well_named(node))
    _dissolve_shared(root)
    hoist(root, {(m.path, m.call): m.outputs for m in plan.module_calls})
    return root


def is_container(cls: str) -> bool:
    """Whether the class is one of PyTorch's own containers."""
    module, _, simple = cls.rpartition(".")
    return module.startswith("torch.nn") and simple in _CONTAINERS


def live_calls(plan: Plan) -> list[Call]:
    """The calls that the outputs need."""
    wanted = {value for _, value in plan.outputs}
    live: list[Call] = []
    for call in reversed(plan.calls):
        if wanted.intersection(call.outputs):
            live.append(call)
            wanted.update(reads(call))
    return live[::-1]


def reads(call: Call) -> Iterator[str]:
    """The values that a call reads."""
    for arg in (*call.args, *call.kwargs.values()):
        yield from refs(arg)


def dissolve(node: Node, unwanted: Callable[[Node], bool]) -> None:
    """Put the items of every node that is unwanted (a predicate), and not a model of its own, in its place."""
    items: list[Node | Call] = []
    for item in node.items:
        if isinstance(item, Node):
            dissolve(item, unwanted)
            if not item.nested and unwanted(item):
                for inner in item.items:
                    if isinstance(inner, Node):
                        inner.parts = (*item.parts, *inner.parts)
                items.extend(item.items)
                continue
        items.append(item)
    node.items = items


def hoist(root: Node, outputs: Mapping[tuple[str, int], Collection[str]]) -> None:
    """Move operations up that a module computes from outside values alone and others read, though they are none of its
    own outputs: a lookup index made once for the whole model, a transpose of its input.

    outputs: the values that PyTorch's module calls give, by (path, call).
    """
    readers: dict[str, list[Call]] = {}
    for call in root.calls():
        for value in reads(call):
            readers.setdefault(value, []).append(call)

    def visit(node: Node) -> None:
        items: list[Node | Call] = []
        for item in node.items:
            if isinstance(item, Node):
                visit(item)
                moved = _escaping(item, readers, outputs.get((item.path, item.call), ()))
                item.items = [i for i in item.items if not any(i is m for m in moved)]
                items += moved
            items.append(item)
        node.items = [i for i in items if not isinstance(i, Node) or i.items]

    visit(root)


def _escaping(node: Node, readers: Mapping[str, list[Call]], outputs: Collection[str]) -> list[OpCall]:
    inside = {id(call) for call in node.calls()}
    made = {value for call in node.calls() for value in call.outputs}
    free: list[OpCall] = []
    for item in node.items:
        if isinstance(item, OpCall) and not any(v in made for v in reads(item)):
            free.append(item)
            made.difference_update(item.outputs)
    wanted: set[int] = set()
    for call in reversed(free):
        outside = any(id(r) not in inside for v in call.outputs for r in readers.get(v, ()) if v not in outputs)
        if outside or any(id(r) in wanted for v in call.outputs for r in readers.get(v, ())):
            wanted.add(id(call))
    return [call for call in free if id(call) in wanted]


def _place(
    root: Node,
    call: Call,
    scopes: Sequence[tuple[str, int, str]],
    seen: dict[tuple[int, str, int], Node],
    names: dict[tuple[str, int], str],
) -> None:
    here = root
    for path, index, cls in scopes:
        last = here.items[-1] if here.items else None
        if isinstance(last, Node) and (last.path, last.call) == (path, index):
            here = last
            continue
        prefix = here.prefix if path.startswith("*") else clean(path)
        child = Node(path=path, call=index, cls=cls, prefix=prefix, nested=names.get((path, index), ""))
        child.parts = (path.removeprefix(f"{here.path}.") if here.path else path,)
        before = seen.setdefault((id(here), path, index), child)
        if before is not child:  # its calls don't stand together: neither part is the module
            before.whole = child.whole = False
        here.items.append(child)
        here = child
    here.items.append(call)


def _scopes(call: Call) -> list[tuple[str, int, str]]:
    return [scope for scope in call.origin.scopes if scope[0]]


def _root_class(calls: Iterable[Call]) -> str:
    return next((s[2] for c in calls for s in c.origin.scopes if not s[0]), "")


def _blocks(items: Iterable[Block | Call], level: int = 0) -> Iterator[tuple[Block, list[Call], int]]:
    for item in items:
        if isinstance(item, Block):
            yield item, list(_flat(item.items)), level
            yield from _blocks(item.items, level + 1)


def _flat(items: Iterable[Block | Call]) -> Iterator[Call]:
    for item in items:
        if isinstance(item, Block):
            yield from _flat(item.items)
        else:
            yield item


def _scope_of(block: Block, calls: Sequence[Call], level: int) -> tuple[str, int, str] | None:
    """The module call that a block is, or None where it is a run of calls that no module stands for."""
    scopes = {tuple(_scopes(call)[level : level + 1]) for call in calls}
    only = next(iter(scopes)) if len(scopes) == 1 else ()
    return only[0] if only and block.name.startswith(clean(only[0][0])) else None


def _well_named(node: Node) -> bool:
    """Whether each layer inside has the module's own name in front of its own."""
    layers = {call.layer for call in node.calls() if isinstance(call, LayerCall)}
    return all(name == node.prefix or name.startswith(f"{node.prefix}_") for name in layers)


def _dissolve_shared(root: Node) -> None:
    """A layer that is called twice is made once, in the innermost node around all of its calls."""
    count: dict[str, int] = {}
    for call in root.calls():
        if isinstance(call, LayerCall):
            count[call.layer] = count.get(call.layer, 0) + 1
    shared = {layer: n for layer, n in count.items() if n > 1}
    if not shared:
        return

    def divided(node: Node) -> bool:
        inside: dict[str, int] = {}
        for call in node.calls():
            if isinstance(call, LayerCall) and call.layer in shared:
                inside[call.layer] = inside.get(call.layer, 0) + 1
        return any(n != shared[layer] for layer, n in inside.items())

    dissolve(root, divided)
