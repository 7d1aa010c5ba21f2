"""Einsums in the words that Keras follows.

Einsum("...i,ji->...j")                                      → Einsum("abi,ji->abj")
Einsum("ai,ji->aj", x, p) where p has the size 1 along i     → Einsum("ai,j->aj", x, Squeeze(p))
"""

from __future__ import annotations

from dataclasses import replace

from translator.graph.dims import SymShape
from translator.graph.edit import Edit
from translator.graph.view import Graph, NodeView


def spell_out_einsums(graph: Graph) -> Graph:
    """An ellipsis that stands for the same axes everywhere is letters: any layout will do, Keras knows the sizes."""
    edit = Edit(graph)
    for node in graph.nodes:
        spelled = _spelled_out(node, graph) if node.key == "Einsum" else None
        if spelled is not None:
            edit.put([node], [replace(node, attributes={**node.attributes, "equation": spelled})])
    return edit.done


def _spelled_out(node: NodeView, graph: Graph) -> str | None:
    equation = str(node.attr("equation")).replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if "..." not in equation or "->" not in equation:
        return None
    hidden: list[SymShape] = []
    for term, value in zip(terms, node.inputs, strict=True):
        before, dots, after = term.partition("...")
        shape = graph.shapes[value]
        hidden.append(shape[len(before) : len(shape) - len(after)] if dots else ())
    longest = max(hidden, key=len)
    free = [c for c in "abcdefghijklmnopqrstuvwxyz" if c not in equation.lower()]
    same = all(own == longest[len(longest) - len(own) :] for own in hidden)
    if not same or len(free) < len(longest):
        return None
    names = "".join(free[: len(longest)])
    written = [t.replace("...", names[len(names) - len(own) :]) for t, own in zip(terms, hidden, strict=True)]
    return f"{','.join(written)}->{equation.partition('->')[2].replace('...', names)}"


def squeeze_broadcast_letters(graph: Graph) -> Graph:
    """An operand of size 1 along a letter for which another operand has more is broadcast: it loses that axis."""
    edit = Edit(graph)
    for node in graph.nodes:
        equation = str(node.attr("equation")).replace(" ", "") if node.key == "Einsum" else "..."
        if "..." in equation or "->" not in equation:
            continue
        left, _, result = equation.partition("->")
        terms = left.split(",")
        longer = {
            c
            for t, v in zip(terms, node.inputs, strict=True)
            for c, d in zip(t, graph.shapes[v], strict=True)
            if d != 1
        }
        inputs, before = list(node.inputs), []
        for place, (term, value) in enumerate(zip(terms, node.inputs, strict=True)):
            axes = [a for a, (c, d) in enumerate(zip(term, graph.shapes[value], strict=True)) if d == 1 and c in longer]
            if axes and len(set(term)) == len(term):
                terms[place] = "".join(c for a, c in enumerate(term) if a not in axes)
                inputs[place], made = _without(node, value, axes, edit)
                before += made
        if inputs != list(node.inputs):
            attributes = {**node.attributes, "equation": f"{','.join(terms)}->{result}"}
            edit.put([node], [*before, replace(node, inputs=tuple(inputs), attributes=attributes)])
    return edit.done


def _without(node: NodeView, value: str, axes: list[int], edit: Edit) -> tuple[str, list[NodeView]]:
    """The value without axes of size 1, and the node that takes them away, if it needs one."""
    shape = tuple(d for a, d in enumerate(edit.graph.shapes[value]) if a not in axes)
    seen = edit.seen_as(value, shape)
    if seen is not None:
        return seen, []
    name = edit.value(f"{node.outputs[0]}:{value}", shape, value)
    which = edit.constant(f"{name}_axes", axes)
    return name, [replace(node, op="Squeeze", inputs=(value, which), outputs=(name,), attributes={})]
