"""Many small modules proven in one run: each is a part of one model with an input of its own, and is judged by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from translator import runtime
from translator.verdict import Report, Verdict

LIMIT = 1e-9


@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting of one op. make: builds the module. inputs: shapes (floats), or tensors."""

    name: str
    make: Callable[[], nn.Module]
    inputs: tuple[Any, ...]


def case(name: str, make: Callable[[], nn.Module], *inputs: Any) -> Case:
    """A case whose inputs are shapes of random floats, or tensors."""
    return Case(name=name, make=make, inputs=inputs)


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*args)


def applied(name: str, function: Callable[..., Any], *inputs: Any) -> Case:
    """A case that calls a function."""
    return Case(name=name, make=lambda: Apply(function), inputs=inputs)


class Together(nn.Module):
    """All cases side by side."""

    def __init__(self, modules: Sequence[nn.Module], counts: Sequence[int]) -> None:
        super().__init__()
        self.cases = nn.ModuleList(modules)
        self.counts = counts

    def forward(self, *args: torch.Tensor) -> list[torch.Tensor]:
        outputs: list[torch.Tensor] = []
        rest = list(args)
        for module, count in zip(self.cases, self.counts, strict=True):
            outputs += tensors(module(*rest[:count]))
            rest = rest[count:]
        return outputs


def tensors(value: Any) -> list[torch.Tensor]:
    """The tensors in a nested result, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for item in value or () for t in tensors(item)]


def randomised(module: nn.Module) -> nn.Module:
    """No parameter or statistic is constant, so that each has an effect."""
    generator = torch.Generator().manual_seed(1)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.25)
    return module.eval()


def example(spec: Any, seed: int) -> torch.Tensor:
    """A tensor: `spec` itself, or random numbers of that shape."""
    if isinstance(spec, torch.Tensor):
        return spec
    return torch.randn(spec, generator=torch.Generator().manual_seed(seed))


@cache
def prove_cases(cases: tuple[Case, ...]) -> tuple[Report, Any]:
    """The report of all cases in one model, and the plan."""
    runtime.prepare()
    from translator.engines.native import translate
    from translator.verify.proof import ProofOptions, Subject, prove

    torch.manual_seed(0)
    modules = [randomised(c.make()) for c in cases]
    inputs = tuple(example(s, i) for i, s in enumerate(s for c in cases for s in c.inputs))
    together = Together(modules, [len(c.inputs) for c in cases]).eval()
    result = translate(together, inputs)
    subject = Subject(keras_model=result.model, claims=result.claims, load_state=result.load_state)
    return prove(together, inputs, subject, ProofOptions(dtypes=("float64",))), result.plan


def assert_proven(cases: Sequence[Case], one: Case) -> None:
    """The case is equal in float64, alone and within the whole, and so is the whole."""
    report, _ = prove_cases(tuple(cases))
    path = f"cases.{list(cases).index(one)}"
    rows = [row for row in report.layers if (row.torch or "").split(".")[:2] == path.split(".")]
    assert rows, f"{one.name}: no layer was compared"
    worst = max((row.error_f64 for row in rows if row.error_f64 is not None), default=None)
    assert worst is not None, f"{one.name}: no number was compared"
    assert worst <= LIMIT, f"{one.name}: relative error {worst:.1e}"
    assert report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED), report.first_wrong
