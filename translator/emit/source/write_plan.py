"""A plan as the text of a Python file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from translator.emit.source.fold import Program, fold
from translator.emit.source.functional import functional
from translator.emit.source.listing import Listing, forms, moves
from translator.emit.source.program import Function, LayerStatement
from translator.emit.source.render import formatted, imports
from translator.emit.source.replay import check
from translator.emit.source.sequential import Chain, chain_of, sequential
from translator.emit.source.subclass import subclass
from translator.emit.source.syntax import own
from translator.emit.source.tables import lifted
from translator.emit.source.tidy import Tidy, tidied
from translator.emit.source.top import Top, header, top_of
from translator.errors import InternalError, UnsupportedError
from translator.plan.calls import Plan

_SAME_CHANNELS = ("Activation", "Softmax", "ReLU", "Flatten", "Dropout", "GlobalAveragePooling2D", "GlobalMaxPooling2D")
_HEADS = ("Dense", "Conv1D", "Conv2D")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folded:
    """A plan as a program, ready to be written. chain: of the sequential style."""

    plan: Plan
    style: str
    tidy: Tidy
    top: Top
    chain: Chain | None = None

    def text(self, listing: Listing, *, spec: str, where: Path | None) -> str:
        """The file. listing: how the model lists its layers, where blocks hold them."""
        if self.chain is not None:
            body = sequential(self.tidy.program, self.chain.inside, self.top, listing)
        elif self.style == "functional":
            body = functional(self.tidy.program, self.top)
        else:
            body = subclass(self.tidy.program, self.top, listing)
        between = "\n\n\n"
        tables, body = lifted(body)
        if definitions := (*self.tidy.definitions, *listing.table(), *tables):
            body, between = "\n".join(definitions) + "\n\n\n" + body, "\n\n"
        head = header(self.plan, spec=spec, style=self.style, torch_version=version("torch"))
        return formatted(f"{head}\n{imports(body)}{between}{body}", where)


def _folded(plan: Plan, style: str) -> _Folded:
    if any(plan.values[value].dtype == "float64" for _, value in plan.inputs):
        raise UnsupportedError(
            f"{plan.name} computes in float64, and a written file in float32, as Keras does by default",
            reason="dtype",
            fix="write it from module.float(), and let keras.config.set_dtype_policy decide where it is built",
        )
    chain = chain_of(plan) if style == "sequential" else None
    program, classes = with_classes(chain.program if chain else fold(plan, symbolic=style == "functional"))
    return _Folded(plan=plan, style=style, tidy=tidied(program), top=top_of(plan, classes=classes), chain=chain)


def checked_source(plan: Plan, *, style: str = "functional", spec: str = "", where: Path | None = None) -> str:
    """The source of a plan in one of the styles. where: the file it will be, for its project's ruff settings.

    It is run with Keras replaced by a recorder: it builds the plan's network, call by call, and lists the layers as the
    converted model does.
    Raises: UnsupportedError (dtype) for a network in float64, (style) for one that is no chain where one is asked for.
    """
    folded = _folded(plan, style)
    moved: tuple[tuple[str, str], ...] = ()
    for form in forms(plan, style=style):
        listing = Listing(form=form, moved=moved, sequential=style == "sequential")
        source = folded.text(listing, spec=spec, where=where)
        others = check(source, plan)
        if not others:
            return source
        if form == "flat":
            moved = tuple(move for mine, names in others for move in moves(mine, names))
    raise InternalError(f"the written source of {plan.name} doesn't list its layers as the converted model does")


def with_classes(program: Program) -> tuple[Program, int | None]:
    """The program with the size of its last layer as `num_classes`, and that size; None where it ends otherwise."""
    root = program.root
    if len(root.returns) != 1:
        return program, None
    wanted = root.returns[0]
    for at in range(len(root.body) - 1, -1, -1):
        statement = root.body[at]
        if wanted not in statement.targets:
            continue
        if not isinstance(statement, LayerStatement) or statement.shared or len(statement.args) != 1:
            return program, None
        if statement.cls in _HEADS and statement.settings[0][1].isdigit() and int(statement.settings[0][1]) > 1:
            classes = int(statement.settings[0][1])
            changed = replace(statement, settings=(("", own("num_classes")), *statement.settings[1:]))
            body = (*root.body[:at], changed, *root.body[at + 1 :])
            return replace(program, root=_with_body(root, body)), classes
        if statement.cls not in _SAME_CHANNELS or not statement.args[0].isidentifier():
            return program, None
        wanted = statement.args[0]
    return program, None


def _with_body(root: Function, body: tuple[object, ...]) -> Function:
    return Function(name=root.name, cls=root.cls, inputs=root.inputs, body=body, returns=root.returns, prefixed=False)  # type: ignore[arg-type]
