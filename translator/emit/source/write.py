"""A template becomes a function: variables, then parameters, then statements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from translator.emit.source.align import Template
from translator.emit.source.drafts import Draft, arguments_code, choice_of, draft_of, settings_code
from translator.emit.source.items import Item
from translator.emit.source.names import SHORT, free, identifier
from translator.emit.source.parameters import Base, Column, Solution, solve
from translator.emit.source.program import (
    CallStatement,
    Condition,
    Copy,
    Function,
    LayerStatement,
    OpStatement,
    Statement,
)
from translator.emit.source.stages import first_or_rest, rows_code
from translator.emit.source.syntax import names_in, own
from translator.emit.source.variables import Variables, allocate
from translator.errors import InternalError

TAKEN = frozenset(dir(keras.Model)) | frozenset(dir(keras.layers.Layer))
"""Attributes that Keras has; a layer of ours is kept under another name."""


def function_of(
    template: Template,
    *,
    name: str,
    inputs: Sequence[str],
    reserved: set[str],
    keep_inputs: bool,
    sees_inputs: bool = True,
) -> tuple[Function, list[dict[str, Any]]]:
    """The function of a template, and the arguments of each of its bodies.

    sees_inputs: layers are made where the inputs are at hand, so that the length of a list of them can be asked.
    """
    variables = allocate(template, inputs, reserved=set(reserved), keep_inputs=keep_inputs)
    pairs = zip(template.lines, variables.reads, strict=True)
    drafts = [draft_of(line, reads, variables.of) for line, reads in pairs]
    returns = [choice_of(leaf, variables.of, "output") for leaf in variables.returns]
    known = []
    if template.bodies[0].gathered and sees_inputs:
        lengths = tuple(len(body.inputs) for body in template.bodies)
        known.append(Base(code=f"len({inputs[0]})", values=lengths, key="len", parameter=False))
    _share(drafts)
    used = {*reserved, *variables.of.values(), *TAKEN, "i", "label", "layer"}

    def solved() -> Solution:
        columns = [column for draft in drafts for column in draft.columns]
        columns += [column for choice in returns for column in choice.columns]
        return solve(columns, len(template.bodies), reserved=used, known=known)

    solution = solved()
    while [draft for draft in drafts if draft.join(solution.chosen)]:
        solution = solved()
    arrays = any(isinstance(v, np.ndarray) for given in solution.arguments for v in given.values())
    valued = {name for draft in drafts for code in _codes(draft) for name in names_in(code)}
    flags = {p.name for p in solution.parameters if p.default in ("True", "False") and not arrays} - valued
    writer = _Writer(variables, {p.name for p in solution.parameters}, flags, reserved)
    body = tuple(s for at, draft in enumerate(drafts) for s in writer.statements(at, draft))
    function = Function(
        name=name,
        cls="",
        inputs=tuple(inputs),
        gathered=template.bodies[0].gathered,
        parameters=tuple(solution.parameters),
        body=body,
        returns=tuple(choice.code for choice in returns),
        arrays=arrays,
    )
    return function, solution.arguments


def _codes(draft: Draft) -> list[str]:
    """What its call is given."""
    args, kwargs = arguments_code(draft)
    return [*args, *(code for _, code in kwargs)]


def _share(drafts: Sequence[Draft]) -> None:
    """Settings of one name of statements that stand in for each other (a convolution, or a depthwise one) are one."""
    for k, draft in enumerate(drafts):
        for other in drafts[k + 1 :]:
            one, two = draft.line, other.line
            if one.some.rel != two.some.rel or not one.some.kind == two.some.kind == "layer":
                continue
            if any(a and b for a, b in zip(one.present, two.present, strict=True)):
                continue
            mine = dict(draft.settings)
            for key, column in other.settings:
                if key in mine and not mine[key].parts and len({*mine[key].distinct, *column.distinct}) > 1:
                    _join(mine[key], column, one.present)


def _join(one: Column, two: Column, present: Sequence[bool]) -> None:
    values = [a if here else b for a, b, here in zip(one.values, two.values, present, strict=True)]
    one.values[:] = values
    two.values[:] = values


class _Writer:
    """Makes statements of drafts whose columns have code."""

    def __init__(self, variables: Variables, parameters: set[str], flags: set[str], reserved: set[str]) -> None:
        self._variables, self._flags = variables, flags
        self._attributes: set[str] = {*TAKEN, *parameters}
        self._names = {*variables.of.values(), *variables.inputs, *parameters}
        self._scope = {*self._names, *reserved}
        self._kept: dict[str, str] = {}

    def statements(self, at: int, draft: Draft) -> list[Statement]:
        """The statement of a line, after the copies that stand in front of it."""
        found: list[Statement] = [
            Copy(targets=(target,), source=source or f"{self._variables.inputs[0]}[0]")
            for line, target, source in self._variables.copies
            if line == at
        ]
        targets = tuple(self._variables.of["line", at, k] for k in range(len(draft.line.some.outputs)))
        return [*found, self._statement(draft, targets)]

    def _statement(self, draft: Draft, targets: tuple[str, ...]) -> Statement:
        item = draft.line.some
        args, kwargs = arguments_code(draft)
        match item.kind:
            case "layer" | "again":
                again = item.kind == "again"
                return LayerStatement(
                    targets=targets, when=draft.when, cls=item.head, rel=item.rel, args=args, kwargs=kwargs,
                    attribute=self._kept[item.rel] if again else self._attribute(item, draft.when), shared=item.shared,
                    settings=settings_code(draft), again=again,
                )  # fmt: skip
            case "op":
                return OpStatement(targets=targets, when=draft.when, op=item.head, args=args, kwargs=kwargs)
        return self._call(draft, targets, args)

    def _call(self, draft: Draft, targets: tuple[str, ...], args: tuple[str, ...]) -> Statement:
        item = draft.line.some
        if item.function is None:
            raise InternalError(f"{item.rel} calls no function")
        arguments = dict(settings_code(draft))
        headers: tuple[tuple[str, str], ...] = ()
        rel, label = item.rel, ""
        if item.kind == "loop":
            arguments, headers, rel = self._loop(draft)
        elif item.stages is not None:
            arguments, headers, label = dict(item.stages.arguments), item.stages.headers, item.stages.name
        return CallStatement(
            targets=targets, when=draft.when, function=item.function, rel=rel, attribute=self._attribute(item),
            args=args, arguments=_given(item.function, arguments), headers=headers,
            gathers=item.run is not None and item.run.gathers, carried=item.carried or 0, label=label,
            nested=item.function.nested, model=item.model,
        )  # fmt: skip

    def _loop(self, draft: Draft) -> tuple[dict[str, str], tuple[tuple[str, str], ...], str]:
        item = draft.line.some
        run, count = item.run, draft.count
        if run is None or count is None:
            raise InternalError(f"{item.rel} is no loop")
        if count.code == "1":
            return {key: columns[0].code for key, _, columns in draft.rows}, (), f"{item.rel}{run.start}"
        arguments: dict[str, str] = {}
        tables: list[tuple[str, Column]] = []
        for key, how, columns in draft.rows:
            if how == "table":
                variable = free(identifier(key), {*self._names, "i", *(t for t, _ in tables)})
                tables.append((variable, columns[0]))
                arguments[key] = variable
            else:
                arguments[key] = first_or_rest([c.code for c in columns], run.start)
        return arguments, (_header(tables, count.code, run.start),), f"{item.rel}{{i}}"

    def _attribute(self, item: Item, when: Condition | None = None) -> str:
        if item.stages is not None:
            return self._keep(item, "blocks")
        base = identifier(item.rel) if item.rel.strip("_0123456789") else SHORT.get(item.head, "block")
        if when is not None and when.yes == own(base) and base in self._flags and not item.shared:
            self._flags.remove(base)  # the flag says whether the layer is there: None, or the layer
            self._kept[item.rel] = base
            return base
        return self._keep(item, base)

    def _keep(self, item: Item, base: str) -> str:
        # A layer that is called again is a variable of a function, too.
        name = free(base, self._attributes | self._scope if item.shared else self._attributes)
        self._attributes.add(name)
        self._kept[item.rel] = name
        return name


def _header(tables: list[tuple[str, Column]], count: str, start: int) -> tuple[str, str]:
    """The loop over `i`, and over tables: (variables, iterable)."""
    if not tables:
        stop = count if not start else str(int(count) + start) if count.isdigit() else f"{count} + {start}"
        return "i", f"range({start}, {stop})" if start else f"range({stop})"
    begin = f", {start}" if start else ""
    if len(tables) == 1:
        return f"i, {tables[0][0]}", f"enumerate({tables[0][1].code}{begin})"
    names = ", ".join(name for name, _ in tables)
    values = [list(column.distinct.values()) for _, column in tables]
    if all(len(found) == 1 for found in values):
        rows = rows_code(list(zip(*(found[0] for found in values), strict=True)))
    else:
        rows = f"zip({', '.join(column.code for _, column in tables)}, strict=True)"
    return f"i, ({names})", f"enumerate({rows}{begin})"


def _given(function: Function, arguments: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """The arguments in the order of the parameters, without those that are the default."""
    return tuple(
        (p.name, arguments[p.name])
        for p in function.parameters
        if arguments.get(p.name, "") != "" and arguments[p.name] != p.default
    )
