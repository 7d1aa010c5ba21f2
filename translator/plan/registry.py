"""The rules by op, and what they support: the table behind `translator ops` and every refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from translator.plan import rules
from translator.plan.calls import Ref

if TYPE_CHECKING:
    from translator.graph.view import NodeView
    from translator.plan.context import PlanContext

Planned = Ref | tuple[Ref, ...]
Rule = Callable[["NodeView", "PlanContext"], Planned]

ENTRY_POINT = "translator.rules"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleInfo:
    """One rule: the op it plans, the first opset it is written for, what it becomes, and its function."""

    op: str
    since: int
    keras: str
    function: Rule

    @property
    def summary(self) -> str:
        """The first line of the rule's docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]


_RULES: dict[str, RuleInfo] = {}


def rule(*ops: str, since: int = 1, keras: str = "") -> Callable[[Rule], Rule]:
    """Register a function that plans ONNX ops: `@rule("BatchNormalization", since=15, keras="BatchNormalization")`.

    An op of another domain is named "domain::Op". A later registration replaces an earlier one, so that users can
    override a rule from their own package (entry point group "translator.rules").
    """

    def register(function: Rule) -> Rule:
        for op in ops:
            _RULES[op] = RuleInfo(op=op, since=since, keras=keras, function=function)
        return function

    return register


def load_rules() -> dict[str, RuleInfo]:
    """All rules by op: ours, then those of installed packages."""
    for module in iter_modules(rules.__path__):
        import_module(f"{rules.__name__}.{module.name}")
    for point in entry_points(group=ENTRY_POINT):
        point.load()
    return _RULES


def supported() -> Iterable[RuleInfo]:
    """Every rule, sorted by op."""
    return sorted(load_rules().values(), key=lambda info: info.op)
