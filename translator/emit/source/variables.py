"""Python variables for the values of a template: a chain keeps one name, a branch or a shortcut gets its own.

Where bodies differ in what a statement reads (the block's input, or what an optional layer made of it), the values get
one variable, so that `if` around the optional layer is all it takes. No variable is overwritten while any body still
needs what it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from translator.emit.source.align import Line, Template, Value
from translator.emit.source.names import free, identifier
from translator.emit.source.roles import roles_of

_CHAIN = ("x", "y", "z", "u", "v", "w")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """of: the variable of each value. copies: (before line, target, source). inputs: variables of the inputs."""

    of: dict[Value, str]
    copies: tuple[tuple[int, str, str], ...]
    inputs: tuple[str, ...]
    reads: list[list[list[Value | None]]]
    returns: list[list[Value | None]]


@dataclass(slots=True, kw_only=True)
class _Allocator:
    """Forward through the lines, with what each variable holds in each pattern of bodies."""

    lines: Sequence[Line]
    reads: list[list[list[Value | None]]]
    returns: list[list[Value | None]]
    patterns: list[int]
    taken: set[str]
    of: dict[Value, str] = field(default_factory=dict)
    holds: list[dict[str, Value]] = field(default_factory=list)
    last: list[dict[Value, int]] = field(default_factory=list)
    mates: dict[Value, set[Value]] = field(default_factory=dict)
    forked: set[Value] = field(default_factory=set)
    roles: dict[Value, str] = field(default_factory=dict)

    def prepare(self) -> None:
        """When each pattern reads each value last, and which values want one variable."""
        for p in self.patterns:
            last: dict[Value, int] = {}
            for i, leaves in enumerate([*self.reads, self.returns]):
                for leaf in leaves:
                    if (value := leaf[p]) is not None:
                        last[value] = i
            self.last.append(last)
            self.holds.append({})
        for leaves in [*self.reads, self.returns]:
            for leaf in leaves:
                values = {v for v in leaf if v is not None}
                for value in values if len(values) > 1 else ():
                    self.mates.setdefault(value, set()).update(values - {value})

    def writable(self, name: str, line: int, *, always: bool = False) -> bool:
        """Whether no pattern that has this line (or none at all) needs what the variable holds after it."""
        for p, holds, last in zip(self.patterns, self.holds, self.last, strict=True):
            if not always and self.lines[line].items[p] is None:
                continue
            held = holds.get(name)
            if held is not None and last.get(held, -1) > line:
                return False
        return True

    def reusable(self, name: str, line: int) -> bool:
        """Whether it is a variable of these lines that can be written."""
        return name in self.of.values() and self.writable(name, line)

    def assign(self, value: Value, name: str, line: int) -> None:
        """The value is in this variable from now on, where the line is."""
        self.of[value] = name
        self.taken.add(name)
        for p, holds in zip(self.patterns, self.holds, strict=True):
            if not 0 <= line < len(self.lines) or self.lines[line].items[p] is not None:
                holds[name] = value

    def choose(self, value: Value, line: int, hint: str, fixed: set[str]) -> str:
        """A variable for an output of a line: a mate's, the one it was made from, one that is free, or a new one."""
        item = self.lines[line].some
        if item.run is not None and item.run.gathers:
            return free("features", self.taken)
        role = self.roles.get(value, "")
        if role and not self.mates.get(value) and (role not in self.taken or self.reusable(role, line)):
            return role
        sources = list(dict.fromkeys(v for leaf in self.reads[line] for v in leaf if v is not None))
        branches = any(v in self.forked for v in sources)
        wanted = [self.of[m] for m in sorted(self.mates.get(value, ())) if m in self.of]
        made_from = [self.of[v] for v in sources if not (hint and v in self.forked) and v not in self.roles]
        if len(self.reads[line]) > 1:  # branches meet: back to the chain's name
            wanted += [name for name in _CHAIN if name in made_from]
        wanted += made_from
        for name in dict.fromkeys(wanted):
            if name not in fixed and self.writable(name, line):
                return name
        if branches and hint and (hint not in self.taken or self.reusable(hint, line)):
            return hint
        for name in _CHAIN:
            if name not in fixed and name in self.of.values() and self.writable(name, line):
                return name
        return free(hint if branches and hint else "x", self.taken, _CHAIN)


def allocate(template: Template, inputs: Sequence[str], *, reserved: set[str], keep_inputs: bool) -> Variables:
    """Variables of a template. inputs: names for its inputs. keep_inputs: they are never overwritten or copied."""
    reads = [[list(leaf) for leaf in leaves] for leaves in template.reads]
    returns = [list(leaf) for leaf in template.returns]
    copies = {} if keep_inputs and not template.lines else _copies(template, reads, returns, keep_inputs=keep_inputs)
    patterns = _patterns(template.lines, reads, returns)
    work = _Allocator(
        lines=template.lines, reads=reads, returns=returns, patterns=patterns, taken=set(reserved) | set(inputs)
    )
    work.prepare()
    values = [v for v in _in_order(reads) if not (keep_inputs and v[0] == "in")]
    work.forked = {v for v in values if len(_ways(v, template, reads, returns)) > 1}
    work.roles = roles_of(template, reads)
    for i, name in enumerate(inputs):
        work.assign(("in", i, 0), name, -1)
    fixed = set(inputs) if keep_inputs else set()
    made: list[tuple[int, str, str]] = []
    for at, line in enumerate(template.lines):
        for copy, source, hint in copies.get(at, ()):
            name = (
                hint if hint not in work.taken or work.writable(hint, at - 1, always=True) else free(hint, work.taken)
            )
            work.assign(copy, name, -1)
            made.append((at, name, "" if source[0] == "first" else work.of[source]))
        for k in range(len(line.some.outputs)):
            value: Value = ("line", at, k)
            constant = {work.of[v] for leaf in _uncarried(line, reads[at]) for v in leaf if v is not None}
            work.assign(value, work.choose(value, at, _hint(line), fixed | constant), at)
    return Variables(of=work.of, copies=tuple(made), inputs=tuple(inputs), reads=reads, returns=returns)


def _patterns(
    lines: Sequence[Line], reads: list[list[list[Value | None]]], returns: list[list[Value | None]]
) -> list[int]:
    """One body of each kind, as far as presence of lines and flow of values go."""
    kinds: dict[tuple[object, ...], int] = {}
    bodies = len(lines[0].items) if lines else 1
    for b in range(bodies):
        flow = tuple(tuple(leaf[b] for leaf in leaves) for leaves in [*reads, returns])
        kinds.setdefault((tuple(line.items[b] is None for line in lines), flow), b)
    return list(kinds.values())


def _uncarried(line: Line, reads: list[list[Value | None]]) -> list[list[Value | None]]:
    """What a loop reads in every turn: not to be overwritten by what it makes."""
    item = line.some
    if item.carried is None or (item.run is not None and item.run.gathers):
        return []
    return [leaf for k, leaf in enumerate(reads) if k != item.carried]


def _hint(line: Line) -> str:
    """A variable's name from the block or container that made it: `branch1`, `downsample`."""
    parts = line.some.parts if line.some.function is not None else line.some.parts[:-1]
    part = next((p for p in parts if not p.isdigit()), "")
    return identifier(part) if part else ""


def _copies(
    template: Template, reads: list[list[list[Value | None]]], returns: list[list[Value | None]], *, keep_inputs: bool
) -> dict[int, list[tuple[Value, Value, str]]]:
    """`shortcut = x` in front of the first reader of a value that a chain and a shortcut around it start from."""
    found: dict[int, list[tuple[Value, Value, str]]] = {}
    for value in _in_order(reads):
        if value[0] == "first":
            where = next(i for i, leaves in enumerate(reads) if any(value in leaf for leaf in leaves))
            before = next((i for i, leaves in enumerate(reads) if any(("in", 0, 0) in leaf for leaf in leaves)), where)
            _redirect([*reads, returns], value, ("copy", min(where, before), 0), None)
            found.setdefault(min(where, before), []).append((("copy", min(where, before), 0), value, "x"))
            continue
        if value[0] == "in" and (keep_inputs or template.bodies[0].gathered):
            continue
        ways = _ways(value, template, reads, returns)
        short = [way for way in ways if _shortcut(way, template, reads)]
        if len(ways) == 2 and short and short[-1] is not ways[0]:
            first = ways[0][0][0]
            copy: Value = ("copy", first, len(found.get(first, ())))
            _redirect(reads, value, copy, set(short[-1]))
            found.setdefault(first, []).append((copy, value, _shortcut(short[-1], template, reads)))
    return found


def _in_order(reads: list[list[list[Value | None]]]) -> list[Value]:
    return list(dict.fromkeys(v for leaves in reads for leaf in leaves for v in leaf if v is not None))


def _redirect(
    reads: Sequence[list[list[Value | None]]], value: Value, copy: Value, where: set[tuple[int, int]] | None
) -> None:
    for i, leaves in enumerate(reads):
        for k, leaf in enumerate(leaves):
            if where is None or (i, k) in where:
                leaf[:] = [copy if v == value else v for v in leaf]


def _ways(
    value: Value, template: Template, reads: list[list[list[Value | None]]], returns: list[list[Value | None]]
) -> list[list[tuple[int, int]]]:
    """The readers of a value, as (line, leaf), by the branch that they belong to."""
    ways: list[_Way] = []
    for i, leaves in enumerate([*reads, returns]):
        outputs: set[Value] = (
            {("line", i, k) for k in range(len(template.lines[i].some.outputs))} if i < len(reads) else set()
        )
        touched = []
        for k, leaf in enumerate(leaves):
            values = {v for v in leaf if v is not None}
            mine = None
            if value in values:
                bodies = {b for b, v in enumerate(leaf) if v == value}
                mine = next((w for w in ways if values & w.after or not bodies & w.bodies), None)
                if mine is None:
                    mine = _Way()
                    ways.append(mine)
                mine.leaves.append((i, k))
                mine.bodies |= bodies
            touched += [w for w in ways if w is mine or values & w.after]
        for way in touched:
            way.after |= outputs
    return [way.leaves for way in ways]


@dataclass(slots=True, eq=False)
class _Way:
    """A branch that starts from a value: its readers, the bodies in which they read it, and all that follows."""

    leaves: list[tuple[int, int]] = field(default_factory=list)
    bodies: set[int] = field(default_factory=set)
    after: set[Value] = field(default_factory=set)


def _shortcut(way: list[tuple[int, int]], template: Template, reads: list[list[list[Value | None]]]) -> str:
    """What to call a branch that ends in a sum, is a chain of layers that some bodies lack, or is joined as it is."""
    line, leaf = way[-1]
    if line >= len(reads):
        return ""
    head = template.lines[line].some.head
    if head in ("Concatenate", "concatenate") and len(way) == 1:
        return "skip"
    several = len({v for v in reads[line][leaf] if v is not None}) > 1
    return "shortcut" if head in ("Add", "add") or several else ""
