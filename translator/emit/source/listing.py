"""In what order a written model lists its layers: Keras finds the weights of a file by it, class by class.

The converted model is one flat graph, and lists its layers by their distance from the outputs. What is written holds
the same layers in blocks. Its property `layers` takes the blocks apart; where that isn't the order of the graph
(branches of different lengths), a table says which layers stand behind which others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from translator.emit.nesting import is_deep
from translator.emit.source.render import indented
from translator.emit.source.tree import live_calls
from translator.plan.calls import Call, LayerCall, Plan, refs

Form = Literal["own", "short", "flat", "moved"]
FORMS: tuple[Form, ...] = ("own", "short", "flat", "moved")
"""Keras' own property; one for blocks of layers; one for blocks of blocks; the same with layers that are moved."""

_DOC = '"""Keras\' own layers in the converted model\'s order, by which weights are found."""'


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The property `layers` of a written model.

    moved: (layer, the one that it stands behind), in the order of moving. sequential: the blocks are Sequentials.
    """

    form: Form = "own"
    moved: tuple[tuple[str, str], ...] = ()
    sequential: bool = False

    def property(self) -> list[str]:
        """The lines in the model's class."""
        if self.form == "own":
            return []
        if self.form == "short":
            return [
                "# One by one, in the converted model's order, by which weights are found.",
                "layers = property(lambda self: [x for p in self._layers for x in p._layers or [p]])",
            ]
        made = ["return flat(super().layers)"]
        if self.form == "moved":
            made = [
                "found = {layer.name: layer for layer in flat(super().layers)}",
                "names = list(found)",
                "for name, other in BEHIND.items():",
                "    names.remove(name)",
                "    names.insert(names.index(other) + 1, name)",
                "return [found[name] for name in names]",
            ]
        return ["@property", "def layers(self):", *indented([_DOC, *made])]

    def table(self) -> list[str]:
        """The constant that the property reads, if it does."""
        if self.form != "moved":
            return []
        note = "# Layers of shorter branches, and those that they are listed behind."
        return [note, "BEHIND = {", *(f'    "{name}": "{other}",' for name, other in self.moved), "}"]

    def function(self) -> list[str]:
        """The function that the property calls, if it does."""
        if self.form not in ("flat", "moved"):
            return []
        block = "isinstance(layer, keras.Sequential)" if self.sequential else "type(layer).__module__ == __name__"
        inner = "layer.layers" if self.sequential else "layer._layers"
        return [
            "def flat(layers):",
            '    """The layers that blocks are made of, one by one."""',
            "    found = []",
            "    for layer in layers:",
            f"        found += flat({inner}) if {block} else [layer]",
            "    return found",
        ]


def moves(listed: Sequence[str], wanted: Sequence[str]) -> list[tuple[str, str]]:
    """The fewest names to move, each behind another, one after the other, that make `listed` stand as `wanted`; the
    first wanted stays where it is."""
    place = {name: at for at, name in enumerate(listed)}
    longest: dict[str, tuple[int, str]] = {wanted[0]: (1, "")}
    for name in wanted[1:]:
        before = [(length, last) for last, (length, _) in longest.items() if place[last] < place[name]]
        if before:
            length, last = max(before)
            longest[name] = (length + 1, last)
    stay = set()
    last = max(longest, key=lambda name: longest[name][0])
    while last:
        stay.add(last)
        last = longest[last][1]
    return [(name, other) for other, name in pairwise(wanted) if name not in stay]


def forms(plan: Plan, *, style: str) -> Iterable[Form]:
    """The properties that may list the layers of a plan's file, the shortest first."""
    if style == "functional" or is_deep(plan):
        return ("own",)
    compound = any("." in b.variable for spec in plan.layers for b in spec.bindings)
    return [form for form in FORMS if form != "short" or not (compound or style == "sequential")]


def keras_order(plan: Plan) -> Mapping[str, Sequence[str]]:
    """The names of the layers with weights, by Keras class, as the flat Keras model of a plan lists them.

    Source: `keras.src.ops.function.map_graph`. Operations stand by the longest way to an output, and those as far by
    when a walk from the outputs meets them first.
    """
    calls = live_calls(plan)
    met, finished = _walk(plan, calls)
    far: dict[str, int] = {}
    distance = dict.fromkeys(range(len(calls)), 0)
    made = {value: at for at, call in enumerate(calls) for value in call.outputs}
    for at in reversed(finished):
        operation = _operation(calls, at)
        distance[at] = far[operation] = max(distance[at], far.get(operation, 0))
        for before in _before(calls[at], made):
            distance[before] = max(distance[before], distance[at] + 1)
    specs = {spec.name: spec for spec in plan.layers}
    held = {spec.cls for spec in plan.layers if spec.bindings}
    found: dict[str, list[str]] = {}
    for name in sorted(met, key=lambda name: (-far[name], met[name])):
        if name in specs and specs[name].cls in held:
            found.setdefault(specs[name].cls, []).append(name)
    return found


def _walk(plan: Plan, calls: Sequence[Call]) -> tuple[dict[str, int], list[int]]:
    """A number for each operation as a walk from the outputs meets it; the calls as the walk leaves them."""
    made = {value: at for at, call in enumerate(calls) for value in call.outputs}
    met: dict[str, int] = {}
    finished: dict[int, None] = {}
    for _, value in plan.outputs:
        stack = [(made[value], False)] if value in made else []
        while stack:
            at, left = stack.pop()
            if at in finished:
                continue
            if left:
                finished[at] = None
                continue
            met.setdefault(_operation(calls, at), len(met))
            stack.append((at, True))
            stack += [(before, False) for before in reversed(_before(calls[at], made))]
    return met, list(finished)


def _operation(calls: Sequence[Call], at: int) -> str:
    call = calls[at]
    return call.layer if isinstance(call, LayerCall) else f"op {at}"


def _before(call: Call, made: Mapping[str, int]) -> list[int]:
    """The calls that a call reads from, in the order of Keras' arguments."""
    arguments = [*call.args, *(call.kwargs[key] for key in sorted(call.kwargs))]
    return [made[name] for arg in arguments for name in refs(arg) if name in made]
