"""What all styles share: layers, operations and calls as text, conditions as blocks, and ruff's own hand."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from translator.emit.source.program import CallStatement, Condition, Function, LayerStatement, OpStatement
from translator.emit.source.syntax import plain
from translator.errors import InternalError

INDENT = "    "


def layer_call(statement: LayerStatement, name: str) -> str:
    """`layers.Conv2D(64, 3, name="conv1")`."""
    settings = [plain(f"{key}={code}" if key else code) for key, code in statement.settings]
    maker = statement.alias or f"layers.{statement.cls}"
    return f"{maker}({', '.join([*settings, f'name={name}'])})"


def op_call(statement: OpStatement, read: Callable[[str], str] = plain) -> str:
    """`ops.reshape(x, (-1, 64))`, `x[:, 0]`."""
    args = [read(code) for code in statement.args]
    if statement.op == "get_item":
        return f"{args[0]}[{subscripts(args[1])}]"
    kwargs = [f"{key}={read(code)}" for key, code in statement.kwargs]
    return f"ops.{statement.op}({', '.join([*args, *kwargs])})"


def subscripts(code: str) -> str:
    """`(slice(None, 1, None), 0)` as it stands between brackets: `:1, 0`; a tuple of one keeps its comma, for Keras."""
    found = _Subscripts(code)
    return found.text


class _Subscripts:
    """Writes literal slices with colons; anything else stays as it is."""

    def __init__(self, code: str) -> None:
        import ast

        try:
            tree = ast.parse(code, mode="eval").body
        except SyntaxError:
            self.text = code
            return
        many = isinstance(tree, ast.Tuple) and bool(tree.elts)
        parts = tree.elts if isinstance(tree, ast.Tuple) and tree.elts else [tree]
        self.text = ", ".join(self._part(part, code) for part in parts) + ("," if many and len(parts) == 1 else "")

    def _part(self, node: object, code: str) -> str:
        import ast

        is_slice = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "slice"
        if not is_slice or not isinstance(node, ast.Call):
            return ast.get_source_segment(code, node) or "" if isinstance(node, ast.expr) else ""
        start, stop, step = ("" if ast.unparse(a) == "None" else ast.unparse(a) for a in node.args)
        return f"{start}:{stop}{f':{step}' if step else ''}"


def name_code(rel: str, *, name: str | None) -> str:
    """The name of a layer as code. name: the code of the block's own name; None where names are written whole."""
    if name is None:
        return f'f"{rel}"' if "{" in rel else f'"{rel}"'
    if not rel:
        return name
    return f'f"{{{name}}}_{rel}"'


def blocks(statements: Iterable[tuple[Condition | None, list[str]]], read: Callable[[str], str] = plain) -> list[str]:
    """Lines under their conditions; neighbours of one condition in one block, those of the opposite in its `else`."""
    lines: list[str] = []
    last: Condition | None = None
    for when, text in statements:
        if when is None:
            lines += text
        else:
            if last is not None and when.yes == last.no and last.yes != "":
                lines.append("else:")
                when_seen: Condition | None = Condition(yes=when.yes, no="")
            elif last is None or when.yes != last.yes:
                lines.append(f"if {read(when.yes)}:")
                when_seen = when
            else:
                when_seen = last
            lines += [INDENT + line for line in text]
            last = when_seen
            continue
        last = None
    return lines


def indented(lines: Iterable[str], depth: int = 1) -> list[str]:
    """The lines further to the right."""
    return [INDENT * depth + line if line else line for line in lines]


def returned(lines: Sequence[str], returns: Sequence[str]) -> list[str]:
    """The lines with the last of them, where it makes the result, as the return statement."""
    if len(returns) == 1 and lines[-1].startswith(f"{returns[0]} = "):
        return [*lines[:-1], f"return {lines[-1].removeprefix(f'{returns[0]} = ')}"]
    return [*lines, f"return {', '.join(returns)}"]


def looped(headers: Sequence[tuple[str, str]], inner: Sequence[str], read: Callable[[str], str] = plain) -> list[str]:
    """The lines inside loops."""
    lines = [INDENT * depth + f"for {names} in {read(iterable)}:" for depth, (names, iterable) in enumerate(headers)]
    return [*lines, *indented(inner, len(headers))]


def imports(text: str) -> str:
    """The import statements that a program's text needs."""
    names = [name for name in ("layers", "ops") if f"{name}." in text]
    lines = [*(["from functools import partial", ""] if "partial(" in text else []), "import keras"]
    if "np." in text:
        lines.append("import numpy as np")
    if names:
        lines.append(f"from keras import {', '.join(names)}")
    return "\n".join(lines)


def signature(function: Function, *, named: bool) -> str:
    """The parameters of a function."""
    parts = [*function.inputs]
    parts += [p.name if p.default is None else f"{p.name}={p.default}" for p in function.parameters]
    return ", ".join([*parts, *(["*", "name"] if named else [])])


def call_arguments(statement: CallStatement, read: Callable[[str], str] = plain) -> list[str]:
    """Arguments of a block: those without a default by position, the others by name."""
    required = {p.name for p in statement.function.parameters if p.default is None}
    found = []
    positional = not statement.nested
    for key, code in statement.arguments:
        code = read(code)
        positional = positional and key in required and code not in ("True", "False", "None")
        found.append(code if positional else f"{key}={code}")
    return found


def formatted(source: str, where: Path | None = None) -> str:
    """The source as `ruff format` leaves it. where: the file it will be, whose project's settings then hold.

    Raises InternalError where it is no Python.
    """
    import ruff  # type: ignore[import-untyped]

    command = [ruff.find_ruff_bin(), "format", "--quiet"]
    command += ["--isolated", "-"] if where is None else ["--stdin-filename", str(where), "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InternalError(f"ruff can't format the written source: {done.stderr.strip()}")
    return done.stdout
