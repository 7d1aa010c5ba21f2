"""The calls of a plan with those of each module together: what interrupts one and needs none of it comes first.

A constant that is made for a module, or an index made once for all, was planned where it is read; it belongs to no
module, and would cut the one around it in two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from translator.plan.calls import Call, refs

Scope = tuple[str, int]


def together(calls: Sequence[Call], scopes: Callable[[Call], Iterable[Scope]]) -> list[Call]:
    """The calls, none before one that it reads from. scopes: the module calls that a call is part of."""
    inside = [set(scopes(call)) for call in calls]
    first: dict[Scope, int] = {}
    last: dict[Scope, int] = {}
    for at, found in enumerate(inside):
        for scope in found:
            first.setdefault(scope, at)
            last[scope] = at
    entered: dict[Scope, int] = {}
    made: dict[str, float] = {}
    places: list[float] = []
    for at, call in enumerate(calls):
        around = {start for scope, start in entered.items() if scope not in inside[at]}
        needs = max(
            (made[v] for arg in (*call.args, *call.kwargs.values()) for v in refs(arg) if v in made), default=-1
        )
        place = next((start - 0.5 for start in sorted(around) if needs < start), float(at))
        places.append(place)
        made.update(dict.fromkeys(call.outputs, place))
        entered.update({scope: first[scope] for scope in inside[at]})
        for scope in inside[at]:
            if last[scope] == at:
                del entered[scope]
    return [calls[at] for at in sorted(range(len(calls)), key=lambda at: (places[at], at))]
