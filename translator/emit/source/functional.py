"""The functional style: a function for each block, called on tensors."""

from __future__ import annotations

from translator.emit.source.clashes import clashes
from translator.emit.source.fold import Program
from translator.emit.source.program import CallStatement, Copy, Function, LayerStatement, OpStatement, Statement
from translator.emit.source.render import (
    blocks,
    call_arguments,
    indented,
    layer_call,
    looped,
    name_code,
    op_call,
    returned,
    signature,
)
from translator.emit.source.syntax import literal, plain
from translator.emit.source.top import Top

_NESTED = '''def nested(block, *tensors, name, label=None, **settings):
    """`block` as a model of its own: Keras walks a flat graph by recursion, too deep for all of these layers."""
    inputs = [keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in tensors]
    outputs = block(*inputs, **settings, name=name)
    return keras.Model(inputs, outputs, name=label or name)(list(tensors))
'''


def functional(program: Program, top: Top) -> str:
    """The text of a program, without header and imports."""
    parts = [_NESTED] if program.nested else []
    parts += [_function(f) for f in program.functions]
    parts.append(_build_model(program.root, top))
    return "\n\n".join(parts)


def _function(function: Function) -> str:
    named = function.named
    simple = function.cls.rpartition(".")[2]
    head = f"def {function.name}({signature(function, named=named)}):"
    doc = f'"""One `{simple}` of the PyTorch model."""' if simple else '"""One block of the PyTorch model."""'
    lines = _body(function, "name" if named and function.prefixed else None)
    return "\n".join([head, *indented([doc, *returned(lines, function.returns)])]) + "\n"


def _build_model(root: Function, top: Top) -> str:
    lines = [f"def build_model({', '.join(top.parameters)}):", INDENT_DOC.format(top.doc)]
    if names := clashes(top.plan):
        lines += indented(["# Keras names operations itself; names that layers have are counted as used."])
        each = [f"for name in {literal(tuple(names))}:", "    keras.backend.get_uid(name)"]
        lines += indented(each if len(names) > 1 else [f"keras.backend.get_uid({literal(names[0])})"])
    lines += indented(top.inputs(root.inputs))
    lines += indented(_body(root, None))
    lines += indented([f"return keras.Model({top.one(root.inputs)}, {top.outputs(root.returns)}, name={top.name})"])
    return "\n".join(lines) + "\n"


INDENT_DOC = '    """{}"""'


def _body(function: Function, name: str | None) -> list[str]:
    lines = [f"{variable} = {plain(code)}" for variable, code in function.locals]
    return lines + blocks((s.when, _statement(s, name)) for s in function.body)


def _statement(statement: Statement, name: str | None) -> list[str]:
    target = ", ".join(statement.targets)
    match statement:
        case Copy(source=source):
            return [f"{target} = {source}"]
        case OpStatement():
            return [f"{target} = {op_call(statement)}"]
        case LayerStatement():
            return _layer(statement, target, name)
        case CallStatement():
            return _call(statement, target, name)
    return []


def _layer(statement: LayerStatement, target: str, name: str | None) -> list[str]:
    made = layer_call(statement, name_code(statement.rel, name=name))
    given = [plain(a) for a in statement.args] + [f"{key}={plain(code)}" for key, code in statement.kwargs]
    note = [statement.note] if statement.note else []
    if not statement.shared:
        return [*note, f"{target} = {made}({', '.join(given)})"]
    first = [] if statement.again else [*note, f"{statement.attribute} = {made}"]
    return [*first, f"{target} = {statement.attribute}({', '.join(given)})"]


def _call(statement: CallStatement, target: str, name: str | None) -> list[str]:
    function = statement.function
    tensors = [plain(a) for a in statement.args]
    before: list[str] = []
    if statement.headers:
        start = tensors[statement.carried]
        before = [f"{target} = {start}"] if start != target else []
        tensors[statement.carried] = target
    given = [*tensors, *call_arguments(statement)]
    if function.named:
        own = f'"{statement.model}"' if statement.model and name is None else ""
        given.append(f"name={statement.label or own or name_code(statement.rel, name=name)}")
        if statement.model and name is not None:
            given.append(f'label="{statement.model}"')
    call = (
        f"nested({', '.join([function.name, *given])})" if statement.nested else f"{function.name}({', '.join(given)})"
    )
    inner = f"{target}.append({call})" if statement.gathers else f"{target} = {call}"
    return [*before, *looped(statement.headers, [inner])]
