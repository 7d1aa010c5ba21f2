"""Constants that a forward computes are doubles: they stay exact, although no float32 weight or array can hold them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import translator
from translator.errors import UnsupportedError
from translator.verdict import Verdict


class Rotary(nn.Module):
    """A sinusoidal table, multiplied, added, divided by, and joined to each sample of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frequencies = 1.0 / 10000 ** (torch.arange(6).float() / 6)
        angles = torch.outer(torch.arange(x.shape[1]).float(), frequencies)
        turned = self.linear(x) * angles.cos() + angles.sin() / torch.linspace(0.1, 1, 6)
        return turned, torch.cat([x, (angles.sin() * 0.3).expand(x.shape[0], -1, -1)], -1)


@pytest.mark.parametrize("length", [5, 300], ids=["as arrays", "as weights"])
def test_a_table_that_float32_can_not_hold_is_exact_in_float64(length: int, tmp_path: Path) -> None:
    done = translator.convert(Rotary().eval(), torch.randn(2, length, 6))
    assert done.report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)
    assert done.report.balance.unexplained == 0
    assert max(row.error_f64 or 0 for row in done.report.layers) < 1e-13
    artifact = done.save(tmp_path / "net.keras").artifact
    assert artifact is not None
    assert artifact.reloaded


class Drawing(nn.Module):
    """Numbers drawn at every call: no input is needed for them, and no constant can stand for them."""

    def __init__(self, draw: Callable[[], torch.Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.draw = draw

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.draw()


@pytest.mark.parametrize(
    ("draw", "op"),
    [
        (lambda: torch.randn(3), "RandomNormal"),
        (lambda: torch.rand(3), "RandomUniform"),
        (lambda: torch.bernoulli(torch.full((3,), 0.5)), "Bernoulli"),
    ],
)
def test_random_numbers_are_never_a_constant(draw: Callable[[], torch.Tensor], op: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"{op}(Like)?.*\n.*\n?.*test_exact_constants.py, line \d+"):
        translator.convert(Drawing(draw).eval(), torch.randn(2, 3))
