"""What a module call does, as items whose names are relative to the module: ready to be compared with others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from translator.emit.source.settings import SAID, normalised, op_settings
from translator.emit.source.tree import Node
from translator.plan.calls import Call, LayerCall, LayerSpec, Plan, Ref, refs

if TYPE_CHECKING:
    from translator.emit.source.program import Function

Key = tuple[Any, ...]

ALL, FIRST = "*all", "*first"
"""In a body whose inputs are one list: that list, and its first tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A chain of calls of one function as a loop: call k has the name `{rel}{start + k}`.

    names: instead of rel and start, where the names don't count up. rows: the arguments of each call.
    carried: the argument that hands one call's result to the next. gathers: each call reads the list of all values
    so far, and adds its own.
    """

    start: int
    rows: tuple[Mapping[str, Any], ...]
    carried: int = 0
    names: tuple[str, ...] = ()
    gathers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Loops over tables around a call: (variables, iterable) from the outside in, arguments and name as code."""

    headers: tuple[tuple[str, str], ...]
    arguments: Mapping[str, str]
    name: str
    carried: int


@dataclass(slots=True, kw_only=True, eq=False)
class Item:
    """One layer made and called, a layer called again, an operation, a call of a function, or a loop of them.

    head: the Keras class, the operation, or the function's name. rel: its name without that of the module around.
    parts: names of the modules on the way. settings: of the layer, or the arguments of the function.
    args, kwargs: as in the plan, with `Ref`s. first: the name of the layer that is called again.
    model: the name of the model that a run of layers without a module is put in.
    """

    kind: Literal["layer", "again", "op", "call", "loop"]
    head: str
    rel: str
    parts: tuple[str, ...]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    function: Function | None = None
    shared: bool = False
    run: Run | None = None
    stages: Stages | None = None
    model: str = ""

    @property
    def carried(self) -> int | None:
        """Of a loop, the argument that goes round; None where it is none."""
        if self.stages is not None:
            return self.stages.carried
        return self.run.carried if self.run is not None else None

    @property
    def key(self) -> Key:
        """Items with equal keys may be one statement, if their settings can be parameters."""
        shape = (skeleton(self.args), skeleton(dict(self.kwargs)))
        gathers = self.run is not None and self.run.gathers
        return (self.kind, self.head, self.rel, shape, self.shared, gathers)

    def reads(self) -> list[str]:
        """The values it reads, in order, with repeats."""
        return [v for arg in (*self.args, *self.kwargs.values()) for v in refs(arg)]


@dataclass(slots=True, kw_only=True, eq=False)
class Body:
    """All items of one module call. inputs: values from outside, in the order of their first reading; `gathered`: they
    are one list. outputs: values that are read outside, in the order of their making."""

    node: Node
    items: list[Item]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    gathered: bool = False

    @property
    def signature(self) -> tuple[Key, ...]:
        """The keys of its items."""
        return tuple(item.key for item in self.items)


class Reader:
    """Makes the items of nodes."""

    def __init__(self, plan: Plan, readers: Mapping[str, list[Call]]) -> None:
        self._specs: dict[str, LayerSpec] = {spec.name: spec for spec in plan.layers}
        self._values = plan.values
        self._readers = readers
        self._outputs = {value for _, value in plan.outputs}
        self._many: set[str] = set()
        seen: set[str] = set()
        for call in plan.calls:
            if isinstance(call, LayerCall):
                (self._many if call.layer in seen else seen).add(call.layer)

    def body(self, node: Node) -> Body:
        """The items of a node, those of its dissolved children included."""
        items = list(self._items(node, node.prefix, (), set()))
        made = {v for item in items for v in item.outputs}
        inputs = dict.fromkeys(v for item in items for v in item.reads() if v not in made)
        inside = {id(call) for call in node.calls()}
        outputs = [v for call in node.calls() for v in call.outputs if self._escapes(v, inside)]
        return Body(node=node, items=items, inputs=tuple(inputs), outputs=tuple(outputs))

    def _escapes(self, value: str, inside: set[int]) -> bool:
        return value in self._outputs or any(id(r) not in inside for r in self._readers.get(value, ()))

    def _items(self, node: Node, prefix: str, parts: tuple[str, ...], made: set[str]) -> Iterator[Item]:
        for item in node.items:
            if not isinstance(item, Node):
                yield self._item(item, prefix, parts, made)
            elif item.function is None:
                yield from self._items(item, prefix, (*parts, *item.parts), made)
            else:
                yield Item(
                    kind="call", head=item.function.name, function=item.function, rel=relative(item.prefix, prefix),
                    parts=(*parts, *item.parts), settings=dict(item.arguments), outputs=item.results,
                    model=item.nested if item.path.startswith("*") else "",
                    args=([Ref(v) for v in item.inputs],) if item.gathered else tuple(Ref(v) for v in item.inputs),
                    kwargs={},
                )  # fmt: skip

    def _item(self, call: Call, prefix: str, parts: tuple[str, ...], made: set[str]) -> Item:
        if not isinstance(call, LayerCall):
            return Item(
                kind="op", head=call.op, rel=relative(call.name, prefix), parts=parts, args=call.args,
                kwargs=op_settings(call.op, call.kwargs, keep=SAID), outputs=call.outputs,
            )  # fmt: skip
        spec, again = self._specs[call.layer], call.layer in made
        made.add(call.layer)
        first = next((v for arg in call.args for v in refs(arg)), "")
        info = self._values.get(first)
        rank = None if info is None else len(info.layout.axes)
        return Item(
            kind="again" if again else "layer", head=spec.cls, rel=relative(call.layer, prefix), parts=parts,
            args=call.args, kwargs=call.kwargs, outputs=call.outputs, shared=call.layer in self._many,
            settings={} if again else normalised(spec.cls, spec.config, rank),
        )  # fmt: skip


def relative(name: str, prefix: str) -> str:
    """The name without the prefix in front of it; "" where it is the prefix."""
    if not prefix:
        return name
    return "" if name == prefix else name.removeprefix(f"{prefix}_")


def skeleton(arg: Any) -> Any:
    """The form of an argument: where values of the model go, and where constants."""
    if isinstance(arg, Ref):
        return "ref"
    if isinstance(arg, dict):
        return tuple((k, skeleton(v)) for k, v in arg.items())
    if isinstance(arg, list | tuple) and next(refs(arg), None) is not None:
        return tuple(skeleton(v) for v in arg)
    return "constant"


def leaves(arg: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every `Ref` and every constant in an argument, with the way to it; constants are as large as can be."""
    if isinstance(arg, dict) or (isinstance(arg, list | tuple) and next(refs(arg), None) is not None):
        for key, value in arg.items() if isinstance(arg, dict) else enumerate(arg):
            yield from leaves(value, (*path, key))
    else:
        yield path, arg


def argument_leaves(item: Item) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The leaves of all arguments; the way begins with the position or the keyword."""
    for key, arg in (*enumerate(item.args), *item.kwargs.items()):
        yield from leaves(arg, (key,))
