"""Hooks of the user's own around a forward: what they compute belongs to the model, and the module stays itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import translator
from translator.verdict import Verdict

pytestmark = pytest.mark.model


def hooked(module: nn.Module, *, before: Callable[..., Any] | None = None, after: Any = None) -> nn.Module:
    if before is not None:
        module.register_forward_pre_hook(before)
    if after is not None:
        module.register_forward_hook(after)
    return module


def doubled(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(x * 2 for x in inputs)


def padded(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (F.pad(inputs[0], (1, 1, 1, 1)),)


def shifted(_: nn.Module, __: Any, output: Any) -> Any:
    return output + 1 if isinstance(output, torch.Tensor) else (output[0] + 1, *output[1:])


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = hooked(nn.MultiheadAttention(6, 2, batch_first=True), before=doubled, after=shifted)
        self.bilinear = hooked(nn.Bilinear(6, 6, 3), before=doubled, after=shifted)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bilinear(self.attention(x, x, x)[0], x)


BEFORE = lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), hooked(nn.Linear(6, 2), before=doubled))
AFTER = lambda: nn.Sequential(hooked(nn.Linear(6, 6), after=shifted), nn.ReLU(), nn.Linear(6, 2))
AROUND = lambda: nn.Sequential(
    nn.Linear(6, 4), hooked(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), before=doubled, after=shifted)
)
IMAGE = lambda: nn.Sequential(hooked(nn.Conv2d(3, 4, 3), before=padded), hooked(nn.MaxPool2d(2), after=shifted))
MODEL = lambda: hooked(nn.Sequential(nn.Linear(6, 3)), before=doubled, after=shifted)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (BEFORE, (2, 6)),
        (AFTER, (2, 6)),
        (AROUND, (2, 6)),
        (IMAGE, (2, 3, 8, 7)),
        (MODEL, (2, 6)),
        (Attending, (2, 5, 6)),
    ],
    ids=["before", "after", "around a part", "around an image", "around the model", "several tensors"],
)
def test_what_hooks_compute_is_translated_and_each_module_proven(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    module = make()
    done = translator.convert(module, torch.randn(shape))
    assert done.report.verdict is Verdict.EQUAL
    leaves = {path for path, part in module.named_modules() if path and not list(part.children())}
    proven = {row.torch for row in done.report.layers}
    assert {path for path in leaves if not path.endswith("out_proj")} <= proven


def test_a_hook_that_only_looks_changes_nothing() -> None:
    seen: list[torch.Size] = []
    module = nn.Sequential(hooked(nn.Linear(6, 4), after=lambda _, __, y: seen.append(y.shape)), nn.ReLU())
    done = translator.convert(module, torch.randn(2, 6))
    assert done.report.verdict is Verdict.EQUAL
    assert [type(layer).__name__ for layer in done.model.layers[1:]] == ["Dense", "ReLU"]
    assert seen
