"""From the settings of many calls to the parameters of one function: what differs, and what follows from what differs.

Each setting of each statement is a column with a value for every body. A column that is the same everywhere is a
literal; one that follows from another (twice the filters, padded where the stride isn't 1, left out where a parameter
is None) is an expression; only the rest are parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Any, Literal

from translator.emit.source.names import free, identifier
from translator.emit.source.program import Condition, Parameter
from translator.emit.source.settings import ABSENT, FREE
from translator.emit.source.syntax import literal, own

_SIZES = ("filters", "units", "dim", "groups", "heads", "features", "depth", "size")
_KERNELS = ("kernel_size", "padding", "pool_size", "dilation_rate")
_FACTORS = range(2, 65)
_FIRST = ("filters", "units", "kernel_size", "strides")


@dataclass(slots=True, kw_only=True, eq=False)
class Column:
    """One setting, by body (ABSENT where the statement isn't there, FREE where the value makes no difference).

    key: its name. rel: of its statement. kind "presence": whether a statement is there; "choice": which of two
    variables it reads. code, condition: what it becomes. parts: of a tuple of numbers, or a slice, that differs, a
    column for each.
    """

    values: list[Any]
    key: str
    rel: str
    kind: Literal["setting", "presence", "choice"] = "setting"
    code: str = ""
    condition: Condition | None = None
    parts: list[Column] = field(default_factory=list)

    @property
    def whole(self) -> str:
        """Its code, put together of that of its parts."""
        if not self.parts:
            return self.code
        inner = ", ".join(part.code for part in self.parts)
        if isinstance(next(iter(self.distinct.values())), slice):
            return f"slice({inner})"
        return f"({inner},)" if len(self.parts) == 1 else f"({inner})"

    @property
    def distinct(self) -> dict[str, Any]:
        """Its different values, by their literals."""
        return {literal(v): v for v in self.values if not is_open(v)}

    def filled(self) -> list[Any]:
        """The values of a parameter: None where the statement isn't there, the most common one where any will do."""
        texts = [literal(v) for v in self.values if not is_open(v)]
        common = max(dict.fromkeys(texts), key=texts.count, default="")
        return [None if v is ABSENT else self.distinct[common] if v is FREE else v for v in self.values]


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Something that the function knows: a parameter, or the length of its list of inputs."""

    code: str
    values: tuple[Any, ...]
    key: str
    parameter: bool = True


@dataclass(slots=True, kw_only=True)
class Solution:
    """The parameters of a function, each body's arguments for them, and the columns that they were."""

    parameters: list[Parameter] = field(default_factory=list)
    arguments: list[dict[str, Any]] = field(default_factory=list)
    chosen: list[Column] = field(default_factory=list)


def solve(columns: Sequence[Column], bodies: int, *, reserved: set[str], known: Sequence[Base] = ()) -> Solution:
    """Give every column its code (or, of presence and choice, its condition), with as few parameters as can be."""
    bases = list(known)
    chosen: list[tuple[Column, list[Any]]] = []
    varied = []
    for column in columns:
        if len(column.distinct) > 1:
            varied.append(column)
        else:
            _constant(column)
    for column in sorted(varied, key=_priority):
        if not _derive(column, bases):
            values = column.filled()
            base = Base(code=f"«{len(chosen)}»", values=tuple(values), key=column.key)
            bases.append(base)
            chosen.append((column, values))
            _derive(column, [base])
    for column in columns:
        _follow(column, [b for b in bases if b.parameter])
    names = _names([column for column, _ in chosen], reserved)
    for column in columns:
        _rename(column, names)
    found = [
        (Parameter(name=name, default=_default(column, values)), values)
        for name, (column, values) in zip(names, chosen, strict=True)
    ]
    found.sort(key=lambda pair: pair[0].default is not None)
    arguments = [{p.name: values[b] for p, values in found} for b in range(bodies)]
    return Solution(parameters=[p for p, _ in found], arguments=arguments, chosen=[column for column, _ in chosen])


def condition_of(code: str, value: Any) -> Condition:
    """That `code` has this value."""
    if isinstance(value, bool):
        return Condition(yes=code, no=f"not {code}") if value else Condition(yes=f"not {code}", no=code)
    if value is None:
        return Condition(yes=f"{code} is None", no=f"{code} is not None")
    return Condition(yes=f"{code} == {literal(value)}", no=f"{code} != {literal(value)}")


def is_open(value: Any) -> bool:
    """Whether a column has no value of its own there."""
    return value is ABSENT or value is FREE


def _constant(column: Column) -> None:
    column.code = next(iter(column.distinct), "")


def _follow(column: Column, bases: Sequence[Base]) -> None:
    """A setting of a statement that only some bodies have is the parameter of its name, where it has that value."""
    if len(column.distinct) == 1 and any(is_open(v) for v in column.values) and column.kind == "setting":
        for base in bases:
            pairs = zip(column.values, base.values, strict=True)
            if base.key == column.key and all(is_open(v) or literal(v) == literal(b) for v, b in pairs):
                column.code = base.code


def _priority(column: Column) -> tuple[int, int, int]:
    kind = {"setting": 0, "presence": 1, "choice": 2}[column.kind]
    rank = _FIRST.index(column.key) if column.key in _FIRST else len(_FIRST)
    return kind, rank, sum(is_open(v) for v in column.values)


def _derive(column: Column, bases: Sequence[Base]) -> bool:
    """Find the column's code among what is known already."""
    if column.kind != "setting":
        column.condition = _predicate([bool(v) for v in column.values], bases)
        return column.condition is not None
    for base in bases:
        if base.parameter and _family(column.key) == _family(base.key) and (code := _expression(column, base)):
            column.code = code
            return True
    if len(column.distinct) == 2 and not _is_size(column):
        (first, one), (second, _) = column.distinct.items()
        wanted = [None if is_open(v) else literal(v) == first for v in column.values]
        if (found := _predicate(wanted, bases)) is not None:
            column.code = _either(first, found, second) if not isinstance(one, bool) else _truth(one, found)
            return True
    return False


def _truth(first: bool, found: Condition) -> str:
    return found.yes if first else found.no


def _either(yes: str, condition: Condition, no: str) -> str:
    return f"{yes} if {condition.yes} else {no}"


def _expression(column: Column, base: Base) -> str:
    """The column as the base, a multiple of it, or a part of it; "" where it is none."""
    pairs = [(v, b) for v, b in zip(column.values, base.values, strict=True) if not is_open(v)]
    if all(literal(v) == literal(b) for v, b in pairs):
        return base.code
    if not all(type(v) is int and type(b) is int and v > 0 and b > 0 for v, b in pairs):
        return ""
    (value, known), *_ = pairs
    if value % known == 0 and (k := value // known) in _FACTORS and all(v == k * b for v, b in pairs):
        return f"{k} * {base.code}"
    exact = known // value if known % value == 0 else 0
    for k in (2, exact) if _family(column.key) == "kernel" else (exact,):
        if k in _FACTORS and all(v == b // k for v, b in pairs):
            return f"{base.code} // {k}"
    return ""


def _predicate(wanted: Sequence[bool | None], bases: Sequence[Base]) -> Condition | None:
    """A condition that holds for exactly the wanted bodies (None: either way)."""
    simple = [found for base in bases for found in _conditions(base)]
    for condition, holds in simple:
        if all(w is None or w == h for w, h in zip(wanted, holds, strict=True)):
            return condition
    for (a, one), (b, two) in combinations(simple, 2):
        if all(w is None or w == (x and y) for w, x, y in zip(wanted, one, two, strict=True)):
            return Condition(yes=f"{a.yes} and {b.yes}", no=f"{a.no} or {b.no}")
    return None


def _conditions(base: Base) -> Iterator[tuple[Condition, list[bool]]]:
    """Simple conditions on a base, each way round, with where they hold."""
    found: list[tuple[Condition, list[bool]]] = []
    values = base.values
    distinct = {literal(v): v for v in values}

    def add(condition: Condition, test: Callable[[Any], bool]) -> None:
        holds = [test(v) for v in values]
        found.append((condition, holds))
        found.append((condition.opposite(), [not h for h in holds]))

    if any(v is None for v in values) and len(distinct) > 1:
        add(condition_of(base.code, None).opposite(), lambda v: v is not None)
    numbers = [v for v in values if type(v) is int]
    if len(numbers) == len(values) and min(numbers) == 1 and max(numbers) > 1:
        add(Condition(yes=f"{base.code} > 1", no=f"{base.code} == 1"), lambda v: v > 1)
    elif len(distinct) > 1 and _family(base.key) != "size":
        for text, value in distinct.items():
            if value is not None:
                add(condition_of(base.code, value), partial(_is, text))
    return iter(found)


def _is(text: str, value: Any) -> bool:
    return literal(value) == text


def _family(key: str) -> str:
    """Settings of one family may follow from each other: sizes from sizes, kernels from kernels."""
    if key.endswith(_SIZES) and not key.endswith(_KERNELS):
        return "size"
    return "kernel" if key.endswith(_KERNELS) else key


def _is_size(column: Column) -> bool:
    numbers = [v for v in column.distinct.values() if type(v) in (int, float)]
    return bool(numbers) and not column.key.endswith("padding")


def _names(columns: Sequence[Column], reserved: set[str]) -> list[str]:
    """A name for each parameter: the setting's, with its statement's in front where several share it."""
    keys = [column.key for column in columns]
    taken = set(reserved)
    names = []
    for column in columns:
        alone = keys.count(column.key) == 1 or column.kind != "setting"
        base = column.key if alone or not column.rel.strip("_0123456789") else f"{column.rel}_{column.key}"
        name = free(identifier(base), taken)
        taken.add(name)
        names.append(name)
    return names


def _rename(column: Column, names: Sequence[str]) -> None:
    """Put the parameters' names where their numbers stand."""
    for number, name in enumerate(names):
        column.code = column.code.replace(f"«{number}»", own(name))
        if column.condition is not None:
            yes, no = (c.replace(f"«{number}»", own(name)) for c in (column.condition.yes, column.condition.no))
            column.condition = Condition(yes=yes, no=no)


def _default(column: Column, values: Sequence[Any]) -> str | None:
    """A default where a function of this kind has one: what most calls give, if it is no size."""
    if any(v is None for v in values):
        return "None"
    count: dict[str, int] = {}
    for value in values:
        count[literal(value)] = count.get(literal(value), 0) + 1
    if column.key.endswith(("strides", "dilation_rate", "groups")) and "1" in count:
        return "1"
    best = max(count, key=lambda text: count[text])
    if isinstance(values[0], bool):
        return "False" if "False" in count else best
    if _family(column.key) == "size" or 2 * count[best] < len(values):
        return None
    return best
