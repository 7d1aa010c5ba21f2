"""Runs of statements that hand one variable on become lists of layers, called in a loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from translator.emit.source.names import free, identifier
from translator.emit.source.program import CallStatement, Condition, LayerStatement, Statement

LEAST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Statements that are one list of layers. attribute: of the list. when: all of it is there, or none."""

    attribute: str
    statements: tuple[LayerStatement | CallStatement, ...]
    target: str
    source: str
    when: Condition | None = None


def chains(body: Sequence[Statement], taken: Iterable[str]) -> list[Chain | Statement]:
    """The statements, with those that make a chain together."""
    found: list[Chain | Statement] = []
    names = set(taken)
    at = 0
    while at < len(body):
        run = _longest(body, at)
        if len(run) < LEAST or not _worth(run):
            found.append(body[at])
            at += 1
            continue
        found.append(_chain(run, names))
        at += len(run)
    return found


def _longest(body: Sequence[Statement], at: int) -> list[LayerStatement | CallStatement]:
    run: list[LayerStatement | CallStatement] = []
    for statement in body[at:]:
        if not isinstance(statement, LayerStatement | CallStatement) or not _links(statement):
            break
        if run and (statement.args[0] != run[-1].targets[0] or statement.targets != run[-1].targets):
            break
        if run and _known(run) and statement.when is None and not _passes(run):
            break
        run.append(statement)
    return run


def _links(statement: LayerStatement | CallStatement) -> bool:
    """Whether it takes one tensor, by itself, and gives one."""
    if len(statement.args) != 1 or len(statement.targets) != 1 or not statement.args[0].isidentifier():
        return False
    if isinstance(statement, CallStatement):
        return not statement.gathers
    return not statement.kwargs and not statement.shared


def _known(run: Sequence[Statement]) -> bool:
    return all(s.when is not None for s in run)


def _passes(run: Sequence[LayerStatement | CallStatement]) -> bool:
    """Whether the variable is what the chain starts from, so that leaving all of it out changes nothing."""
    return run[0].args[0] == run[0].targets[0]


def _worth(run: Sequence[LayerStatement | CallStatement]) -> bool:
    first = run[0]
    return first.when is None or _passes(run)


def _chain(run: Sequence[LayerStatement | CallStatement], names: set[str]) -> Chain:
    prefix = _common([s.rel for s in run]).rpartition("_")[0]
    name = free(identifier(prefix) if prefix.strip("_0123456789") and "{" not in prefix else "stack", names)
    names.add(name)
    conditions = {None if s.when is None else s.when.yes for s in run}
    return Chain(
        attribute=name, statements=tuple(run), target=run[0].targets[0], source=run[0].args[0],
        when=run[0].when if len(conditions) == 1 else None,
    )  # fmt: skip


def _common(names: Sequence[str]) -> str:
    """What all names begin with."""
    first, last = min(names), max(names)
    return first[: next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
