"""The subclass style: a `keras.layers.Layer` for each block and a `keras.Model` around them, all registered."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import groupby, pairwise
from typing import TypeGuard

from translator.emit.source.chains import Chain, chains
from translator.emit.source.fold import Program
from translator.emit.source.listing import Listing
from translator.emit.source.names import camel, free
from translator.emit.source.program import (
    CallStatement,
    Condition,
    Copy,
    Function,
    LayerStatement,
    OpStatement,
    Parameter,
    Statement,
)
from translator.emit.source.render import blocks, call_arguments, indented, layer_call, name_code, op_call, returned
from translator.emit.source.syntax import names_in, on_self, own, plain
from translator.emit.source.top import Top
from translator.emit.source.write import TAKEN

_WIDE, _LINE = 50, 76


def subclass(program: Program, top: Top, listing: Listing) -> str:
    """The text of a program, without header and imports."""
    classes: dict[str, str] = {}
    model = top.class_name
    for function in program.functions:
        base = camel(function.cls.rpartition(".")[2] or function.name)
        classes[function.name] = free(base, {model, *classes.values()})
    parts = ["\n".join(lines) + "\n"] if (lines := listing.function()) else []
    parts += [_Class(f, classes, top).text(classes[f.name], "layers.Layer") for f in program.functions]
    parts.append(_Class(_model(program.root, top), classes, top).text(model, "keras.Model", listing))
    parts.append(_build_model(program.root, model, top))
    return "\n\n".join(parts)


def _model(root: Function, top: Top) -> Function:
    """The network as a block whose parameter is its number of classes, where that is known."""
    given = () if top.classes is None else (Parameter(name="num_classes", default=str(top.classes)),)
    return Function(
        name=root.name, cls=root.cls, inputs=root.inputs, parameters=given, body=root.body, returns=root.returns,
        prefixed=False, locals=root.locals,
    )  # fmt: skip


class _Class:
    """Writes one class."""

    def __init__(self, function: Function, classes: dict[str, str], top: Top) -> None:
        self._function, self._classes, self._top = function, classes, top
        attributes = {s.attribute for s in function.body if isinstance(s, LayerStatement | CallStatement)}
        self._parts = chains(function.body, {*TAKEN, *attributes, *(p.name for p in function.parameters)})
        self._prefix = "name" if function.named and function.prefixed else None

    def text(self, name: str, base: str, listing: Listing | None = None) -> str:
        """The class statement."""
        simple = self._function.cls.rpartition(".")[2]
        doc = (
            f"The network `{self._top.plan.name}`."
            if base == "keras.Model"
            else f"One `{simple}` of the PyTorch model."
            if simple
            else "One block of the PyTorch model."
        )
        lines = [
            f"@keras.saving.register_keras_serializable(package={self._top.name})",
            f"class {name}({base}):",
            f'    """{doc}"""',
            "",
            *indented(self._init()),
            "",
            *indented(self._call()),
        ]
        if listing and (listed := listing.property()):
            lines += ["", *indented(listed)]
        if self._function.arrays:
            lines += ["", *indented(self._config())]
        return "\n".join(lines) + "\n"

    def _init(self) -> list[str]:
        function = self._function
        parameters = [p.name if p.default is None else f"{p.name}={p.default}" for p in function.parameters]
        lines = ["super().__init__(name=name, **kwargs)" if self._prefix else "super().__init__(**kwargs)"]
        lines += [f"self.{name} = {name}" for name in self._kept()]
        made = blocks(pair for part in self._parts if _makes(part) for pair in self._make(part))
        lines += [f"{variable} = {plain(code)}" for variable, code in function.locals]
        named = ["*", "name"] if self._prefix else []
        return [f"def __init__({', '.join(['self', *parameters, *named, '**kwargs'])}):", *indented([*lines, *made])]

    def _kept(self) -> list[str]:
        """The parameters that `call` reads; all, where Keras can't make the config by itself."""
        read: list[str] = []
        for part in self._parts:
            if isinstance(part, Chain):
                continue
            if part.when is not None:
                read += names_in(part.when.yes)
            for code in (*getattr(part, "args", ()), *(v for _, v in getattr(part, "kwargs", ()))):
                read += names_in(code)
        for code in self._function.returns:
            read += names_in(code)
        order = [p.name for p in self._function.parameters]
        if self._function.arrays:
            return order
        layers = {part.attribute for part in self._parts if _is_flag(part)}
        return sorted(set(read) - layers, key=order.index)

    def _make(self, part: Chain | Statement) -> list[tuple[Condition | None, list[str]]]:
        if isinstance(part, Chain):
            if part.when is None and self._long(part):
                return self._appended(part)
            elements = [line for s in part.statements for line in self._element(s, part.when)]
            empty: list[tuple[Condition | None, list[str]]] = (
                [(None, [f"self.{part.attribute} = []"])] if part.when else []
            )
            return [*empty, (part.when, [f"self.{part.attribute} = [", *indented(elements), "]"])]
        if not isinstance(part, LayerStatement | CallStatement):
            return []
        note = [part.note] if isinstance(part, LayerStatement) and part.note else []
        if _is_flag(part):
            return [(None, [*note, f"self.{part.attribute} = {self._made(part)} if {part.attribute} else None"])]
        return [(part.when, [*note, f"self.{part.attribute} = {self._made(part)}"])]

    def _long(self, chain: Chain) -> bool:
        """Whether some layers are there under a condition, and their list would be hard to read with it inside."""
        found = [s for s in chain.statements if s.when is not None]
        either = any(a.when and b.when and a.when.yes == b.when.no for a, b in pairwise(chain.statements))
        lines = (self._element(s, None)[-1] for s in found)
        return either or any(len(line) > _LINE for line in lines)

    def _appended(self, chain: Chain) -> list[tuple[Condition | None, list[str]]]:
        """The list made step by step, with `if` around what is there under a condition."""
        name = f"self.{chain.attribute}"
        made: list[tuple[Condition | None, list[str]]] = []
        for when, statements in groupby(chain.statements, key=lambda s: s.when):
            group = list(statements)
            if when is not None and not made:
                made.append((None, [f"{name} = []"]))
            if when is not None or (made and len(group) == 1):
                made += [(when, self._append(name, s)) for s in group]
                continue
            elements = indented(line for s in group for line in self._element(s, None))
            made.append((None, [f"{name}.extend([", *elements, "])"] if made else [f"{name} = [", *elements, "]"]))
        return made

    def _append(self, name: str, statement: LayerStatement | CallStatement) -> list[str]:
        note = [statement.note] if isinstance(statement, LayerStatement) and statement.note else []
        many = isinstance(statement, CallStatement) and statement.headers
        made = self._made(statement)
        return [*note, f"{name}.extend({made})" if many else f"{name}.append({made})"]

    def _element(self, statement: LayerStatement | CallStatement, when: Condition | None) -> list[str]:
        made = self._made(statement)
        if isinstance(statement, CallStatement) and statement.headers:
            made = f"*{made}"
        if statement.when is not None and when is None:
            made = f"*([{made}] if {plain(statement.when.yes)} else [])"
        note = [statement.note] if isinstance(statement, LayerStatement) and statement.note else []
        return [*note, f"{made},"]

    def _made(self, statement: Statement) -> str:
        if isinstance(statement, LayerStatement):
            return layer_call(statement, name_code(statement.rel, name=self._prefix))
        if not isinstance(statement, CallStatement):
            return ""
        given = call_arguments(replace(statement, nested=False))
        if statement.function.named:
            given.append(f"name={statement.label or name_code(statement.rel, name=self._prefix)}")
        made = f"{self._classes[statement.function.name]}({', '.join(given)})"
        if not statement.headers:
            return made
        loops = " ".join(f"for {_target(variables)} in {plain(iterable)}" for variables, iterable in statement.headers)
        return f"[{made} {loops}]"

    def _call(self) -> list[str]:
        function = self._function
        lines = blocks(
            ((None if isinstance(part, Chain) else part.when, _called(part)) for part in self._parts), on_self
        )
        returns = tuple(on_self(code) for code in function.returns)
        inputs, first = list(function.inputs), []
        if len(inputs) > 1 and self._prefix is None and function.name == "build_model":  # `fit` knows one argument
            inputs, first = ["inputs"], [f"{', '.join(inputs)} = inputs"]
        body = _in_one([*first, *returned(lines, returns)])
        return [f"def call({', '.join(['self', *inputs])}):", *indented(body)]

    def _config(self) -> list[str]:
        own = ", ".join(f'"{p.name}": self.{p.name}' for p in self._function.parameters)
        return ["def get_config(self):", *indented([f"return super().get_config() | {{{own}}}"])]


def _in_one(lines: list[str]) -> list[str]:
    """`x = self.add([x, y])`, `return self.relu(x)` as one line."""
    made, last = re.fullmatch(r"(\w+) = (self\..*)", lines[-2] if len(lines) > 1 else ""), lines[-1]
    if made is None or len(re.findall(rf"\b{made[1]}\b", last)) != 1 or not last.endswith(f"({made[1]})"):
        return lines
    whole = last.removesuffix(f"{made[1]})") + f"{made[2]})"
    return [*lines[:-2], whole] if last.startswith("return self.") and len(whole) <= _LINE else lines


def _target(variables: str) -> str:
    """Many variables of a comprehension in brackets, where a line may break."""
    return f"({variables})" if len(variables) > _WIDE else variables


def _is_flag(part: Chain | Statement) -> TypeGuard[LayerStatement]:
    """Whether a parameter of its own name says if the layer is there."""
    return isinstance(part, LayerStatement) and part.when is not None and part.when.yes == own(part.attribute)


def _makes(part: Chain | Statement) -> bool:
    return isinstance(part, Chain | CallStatement) or (isinstance(part, LayerStatement) and not part.again)


def _called(part: Chain | Statement) -> list[str]:
    if isinstance(part, Chain):
        before = [f"{part.target} = {part.source}"] if part.source != part.target else []
        return [*before, f"for layer in self.{part.attribute}:", *indented([f"{part.target} = layer({part.target})"])]
    target = ", ".join(part.targets)
    match part:
        case Copy(source=source):
            return [f"{target} = {source}"]
        case OpStatement():
            return [f"{target} = {op_call(part, on_self)}"]
        case LayerStatement(args=args, kwargs=kwargs):
            given = [on_self(a) for a in args] + [f"{key}={on_self(code)}" for key, code in kwargs]
            return [f"{target} = self.{part.attribute}({', '.join(given)})"]
        case CallStatement():
            return _called_block(part, target)
    return []


def _called_block(statement: CallStatement, target: str) -> list[str]:
    tensors = [on_self(a) for a in statement.args]
    if not statement.headers:
        return [f"{target} = self.{statement.attribute}({', '.join(tensors)})"]
    start = tensors[statement.carried]
    before = [f"{target} = {start}"] if start != target else []
    tensors[statement.carried] = target
    call = f"layer({', '.join(tensors)})"
    inner = f"{target}.append({call})" if statement.gathers else f"{target} = {call}"
    return [*before, f"for layer in self.{statement.attribute}:", *indented([inner])]


def _build_model(root: Function, model: str, top: Top) -> str:
    inputs = [top.input_call(k) for k in range(len(top.shapes))]
    given = ["num_classes"] if top.classes is not None else []
    lines = [
        f'"""{top.doc}"""',
        f"model = {model}({', '.join([*given, f'name={top.name}'])})",
        f"model({top.one(inputs)})",
        "return model",
    ]
    return "\n".join([f"def build_model({', '.join(top.parameters)}):", *indented(lines)]) + "\n"
