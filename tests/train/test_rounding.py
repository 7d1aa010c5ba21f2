"""A run that rounding alone carries beyond the limit is named for what it is; a fault in such a network is not."""

from __future__ import annotations

import keras
import pytest
import torch
from torch import nn

from tests.train.parity_pairs import kinds
from translator.training.batchnorm import with_exact_batchnorm
from translator.training.parity import KerasRecipe, ParityOptions, ParityReport, TorchRecipe, parity
from translator.training.rounding import FACTOR, KIND, growth
from translator.training.trajectory_rows import ControlRow, StepRow
from translator.verdict import Verdict

pytestmark = pytest.mark.train

WIDTH, DEPTH = 8, 12
RATE = 0.5
"""With this rate and three examples in a batch, rounding grows a hundredfold in a step."""


class Unsteady(nn.Module):
    """Twelve BatchNorms, each over three values."""

    def __init__(self) -> None:
        super().__init__()
        for i in range(DEPTH):
            setattr(self, f"fc{i}", nn.Linear(WIDTH, WIDTH, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm1d(WIDTH))
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(DEPTH):
            x = torch.relu(getattr(self, f"bn{i}")(getattr(self, f"fc{i}")(x)))
        return self.head(x)


def twin(*, momentum: float = 0.9, epsilon: float = 1e-5) -> keras.Model:
    x = inputs = keras.Input((WIDTH,))
    for i in range(DEPTH):
        x = keras.layers.Dense(WIDTH, use_bias=False, name=f"fc{i}")(x)
        x = keras.layers.BatchNormalization(momentum=momentum, epsilon=epsilon, name=f"bn{i}")(x)
        x = keras.layers.ReLU()(x)
    return with_exact_batchnorm(keras.Model(inputs, keras.layers.Dense(5, name="head")(x)))


def trained(model: keras.Model, *, decays_at: int | None = None) -> ParityReport:
    """Six steps. decays_at: where the rate of PyTorch's, not of Keras', falls by a thousandth."""
    torch.manual_seed(0)
    recipe = TorchRecipe(
        loss=nn.CrossEntropyLoss(), optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=RATE, momentum=0.9)
    )
    theirs = KerasRecipe()
    if decays_at is not None:
        rate = keras.optimizers.schedules.PiecewiseConstantDecay([decays_at], [RATE, 0.999 * RATE])
        theirs = KerasRecipe(optimizer=keras.optimizers.SGD(rate, momentum=0.9))
    options = ParityOptions(steps=6, batch=3, float32=False)
    return parity(Unsteady(), torch.zeros(2, WIDTH), model, recipe=recipe, keras_recipe=theirs, options=options)


def test_rounding_that_grows_is_named_and_each_step_still_holds_the_limit() -> None:
    report = trained(twin())
    assert report.first_wrong, "the run stays within the limit: it shows nothing"
    assert report.verdict is Verdict.EXPLAINED
    (named,) = report.differences
    assert named.kind == KIND
    assert "each step begun with PyTorch's weights, statistics and state agrees to the limit" in named.detail
    assert max(row.gradient for row in report.control) > report.limit
    assert len(report.control) == len(report.steps) == 6
    assert all(row.ok(1e-9) for row in report.tensors)
    assert {c.name for c in report.checks if "begun anew" not in c.name} == {"drift against PyTorch's own"}


@pytest.mark.parametrize(
    "fault",
    [
        {"decays_at": 3},
        pytest.param({"momentum": 0.899}, marks=pytest.mark.slow),
        pytest.param({"epsilon": 1.01e-5}, marks=pytest.mark.slow),
    ],
    ids=["rate", "momentum", "epsilon"],
)
def test_a_fault_in_an_unsteady_network_is_no_rounding(fault: dict[str, float]) -> None:
    decays_at = fault.pop("decays_at", None)
    report = trained(twin(**fault), decays_at=None if decays_at is None else int(decays_at))
    assert report.verdict is Verdict.DIFFERENT
    assert KIND not in kinds(report) | {d.kind for d in report.differences}


def step(number: int, error: float) -> StepRow:
    return StepRow(
        step=number, loss_torch=1.0, loss_keras=1.0, gradient=error, weight=0.0, statistic=None, variance=None,
        predicted=None, state=None,
    )  # fmt: skip


def control(number: int, error: float) -> ControlRow:
    return ControlRow(step=number, loss=0.0, gradient=error, weight=0.0, statistic=0.0, state=0.0)


@pytest.mark.parametrize(
    ("free", "own", "holds"),
    [
        ([1e-14, 1e-10, 1e-6], [1e-14, 1e-10, 1e-6], True),
        ([1e-14, 1e-10, 1e-6], [1e-14, 1e-10, 0.9e-6 / FACTOR], False),
        ([1e-14, 1e-10, 1e-6], [1e-14, 1e-15, 1.0], True),  # below the limit nothing is asked
        ([1e-14, 1e-7, 1e-6], [1e-14, 1e-10, 1e-6], False),  # at no step, not at the end alone
        ([1e-14, 1e-10, 1e-6], [0.0, 0.0, 0.0], False),  # PyTorch doesn't drift at all
        ([1e-14, float("nan"), 1e-6], [1e-14, 1e-10, 1e-6], False),
        ([1e-14, float("inf"), 1e-6], [1e-14, float("inf"), 1e-6], False),
    ],
)
def test_the_drift_is_held_against_pytorchs_own_at_every_step(free: list[float], own: list[float], holds: bool) -> None:
    rows = [step(i, error) for i, error in enumerate(free, 1)], [control(i, error) for i, error in enumerate(own, 1)]
    check, difference = growth(*rows, limit=1e-8)
    assert check.ok is holds
    assert (difference is not None) is holds
