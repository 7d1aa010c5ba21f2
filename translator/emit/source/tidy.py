"""What makes a program shorter to read: settings that all layers of a class share, conditions with a name, comments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from translator.emit.source.fold import Program
from translator.emit.source.names import ALIASES, free
from translator.emit.source.program import Function, LayerStatement, OpStatement, Statement
from translator.emit.source.render import op_call
from translator.emit.source.roles import INDEX
from translator.emit.source.settings import ALWAYS, defaults
from translator.emit.source.syntax import literal

_OFTEN = 3
_LONG = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Tidy:
    """A program, and the definitions that stand in front of it."""

    program: Program
    definitions: tuple[str, ...] = ()


def tidied(program: Program) -> Tidy:
    """Give classes with shared settings that aren't Keras' defaults a name, and say in a comment what Keras has."""
    functions_and_root = (*program.functions, program.root)
    layers = [s for f in functions_and_root for s in f.body if isinstance(s, LayerStatement) and not s.again]
    shared: dict[str, dict[str, str]] = {}
    for cls in dict.fromkeys(s.cls for s in layers):
        mine = [dict(s.settings) for s in layers if s.cls == cls]
        same = {key: code for key, code in mine[0].items() if key in ALWAYS and all(m.get(key) == code for m in mine)}
        if len(mine) >= _OFTEN and "«" not in "".join(same.values()) and _unlike_keras(cls, same) and cls in ALIASES:
            shared[cls] = same
    functions = {id(f): _tidy(f, shared) for f in program.functions}
    root = _tidy(program.root, shared)
    for old, new in zip(program.functions, functions.values(), strict=True):
        old.body, old.locals = new.body, new.locals
    lines = tuple(line for cls, same in shared.items() for line in _definition(cls, same))
    return Tidy(program=replace(program, root=root), definitions=lines)


def _unlike_keras(cls: str, settings: dict[str, str]) -> list[str]:
    return [key for key, code in settings.items() if code != literal(defaults(cls)[key])]


def _definition(cls: str, settings: dict[str, str]) -> list[str]:
    note = _note(cls, settings)
    given = ", ".join(f"{key}={code}" for key, code in settings.items())
    return [*([note] if note else []), f"{ALIASES[cls]} = partial(layers.{cls}, {given})"]


def _note(cls: str, settings: dict[str, str]) -> str:
    """The comment that says where PyTorch's value isn't Keras' default; a bias is no such matter."""
    other = [key for key in _unlike_keras(cls, settings) if key != "use_bias"]
    if not other:
        return ""
    values = " and ".join(literal(defaults(cls)[key]) for key in other)
    verb = "s are" if len(other) > 1 else " is"
    return f"# {' and '.join(other)} as in PyTorch; Keras' default{verb} {values}."


def _tidy(function: Function, shared: dict[str, dict[str, str]]) -> Function:
    body: list[Statement] = []
    noted: set[str] = set()
    for statement in function.body:
        if isinstance(statement, LayerStatement) and not statement.again:
            same = shared.get(statement.cls, {})
            rest = tuple((key, code) for key, code in statement.settings if key not in same)
            note = _note(statement.cls, {key: code for key, code in rest if key in ALWAYS})
            if statement.cls == "Embedding" and statement.settings[0][1] == "1":
                kind = "constant" if ("trainable", "False") in statement.settings else "free parameter"
                note = f"# A {kind} of the PyTorch model, kept as the one row of an embedding."
            if statement.cls in noted:
                note = ""
            elif note:
                noted.add(statement.cls)
            statement = replace(statement, settings=rest, alias=ALIASES[statement.cls] if same else "", note=note)
        body.append(statement)
    named = _named_conditions(function, _joined(_either_way(body)))
    return Function(
        name=function.name, cls=function.cls, inputs=function.inputs, gathered=function.gathered,
        parameters=function.parameters, body=tuple(named[1]), returns=function.returns, nested=function.nested,
        uses=function.uses, prefixed=function.prefixed, locals=named[0], arrays=function.arrays,
    )  # fmt: skip


def _either_way(body: Sequence[Statement]) -> list[Statement]:
    """An operation that is written the same under a condition and under its opposite stands there once."""
    found: list[Statement] = []
    for statement in body:
        last = found[-1] if found else None
        if (
            isinstance(statement, OpStatement)
            and isinstance(last, OpStatement)
            and statement.when is not None
            and last.when == statement.when.opposite()
            and replace(last, when=None) == replace(statement, when=None)
        ):
            found[-1] = replace(last, when=None)
        else:
            found.append(statement)
    return found


def _joined(body: Sequence[Statement]) -> list[Statement]:
    """The operations that make an index, one after the other, as one expression."""
    found: list[Statement] = []
    for statement in body:
        last = found[-1] if found else None
        if (
            isinstance(statement, OpStatement)
            and isinstance(last, OpStatement)
            and statement.targets == last.targets
            and statement.targets[0].startswith(INDEX)
            and statement.when == last.when
            and statement.args[0] == last.targets[0]
            and last.targets[0] not in (*statement.args[1:], *(code for _, code in statement.kwargs))
            and statement.op != "get_item"
        ):
            found[-1] = replace(statement, args=(op_call(last, str), *statement.args[1:]))
        else:
            found.append(statement)
    return found


def _named_conditions(
    function: Function, body: Sequence[Statement]
) -> tuple[tuple[tuple[str, str], ...], list[Statement]]:
    """Long conditional settings get a variable at the head of the function."""
    taken = {p.name for p in function.parameters} | {t for s in function.body for t in s.targets} | {*function.inputs}
    found: dict[str, str] = {}
    changed: list[Statement] = []
    for statement in body:
        if isinstance(statement, LayerStatement):
            settings = []
            for key, code in statement.settings:
                if " if " in code and len(code) > _LONG and re.fullmatch(r"\w+", key):
                    if code not in found:
                        found[code] = free(key, taken)
                        taken.add(found[code])
                    code = found[code]
                settings.append((key, code))
            statement = replace(statement, settings=tuple(settings))
        changed.append(statement)
    return tuple((name, code) for code, name in found.items()), changed
