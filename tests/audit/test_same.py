"""The same written in another way: no difference is said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from keras import layers, ops
from torch import nn

from tests.audit.building import Build, audited, chain, conv, telling
from translator.verdict import Verdict

pytestmark = pytest.mark.audit


class OwnBias(layers.Layer):
    """A bias as a layer of its own."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.offset = self.add_weight(shape=(shape[-1],), name="offset")

    def call(self, x: Any) -> Any:
        return x + self.offset


class OwnDense(layers.Layer):
    """A dense layer that somebody wrote out."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.matrix = self.add_weight(shape=(shape[-1], 4), name="matrix")
        self.offset = self.add_weight(shape=(4,), name="offset")

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.matrix) + self.offset


SAME: dict[str, tuple[Callable[[], nn.Module], Callable[[], Build], tuple[int, ...]]] = {
    "a bias as a layer": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)),
        lambda: chain(layers.Conv2D(4, 3, use_bias=False), OwnBias(), ops.relu, layers.Conv2D(2, 1)),
        (8, 8, 3),
    ),
    "a dense layer of one's own": (
        lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh()), lambda: chain(OwnDense(), ops.tanh), (6,),
    ),
    "activations inside": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 2, 1), nn.Hardswish()),
        lambda: conv(4, layers.Conv2D(2, 1, activation="hard_silu"), activation="silu"),
        (8, 8, 3),
    ),
    "flattened in another order": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 5)),
        lambda: conv(4, layers.Flatten(), layers.Dense(5)),
        (8, 8, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_another_way_to_write_it_is_no_difference(name: str) -> None:
    module, build, shape = SAME[name]
    report = audited(module(), build(), shape)
    assert telling(report) == []
    assert report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)
    assert (report.balance.gaps, report.balance.unexplained) == ((), 0)
