"""Sizes that only the input tells, used as numbers: a mean over the batch, a covariance, losses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical, Normal

import translator
from tests.ops.proving import Apply, Case, applied, assert_proven
from translator.verdict import Verdict

pytestmark = pytest.mark.op

CASES: tuple[Case, ...] = (
    applied("divided by the batch", lambda x: x / x.shape[0], (3, 6)),
    applied("all elements", lambda x: x * x.numel(), (3, 6)),
    applied("a sum of sizes", lambda x: x * (2 * x.shape[0] + 1), (3, 6)),
    applied("half of it", lambda x: x * (x.shape[0] // 2 + 1), (3, 6)),
    applied("whole numbers", lambda x: x.long() + x.shape[0], (3, 6)),
    applied("three times as many ones", lambda x: torch.cat([torch.ones(3 * x.shape[0], 6), x]), (3, 6)),
    applied("two more ones", lambda x: torch.cat([x, x[:1], x[:1]]) * torch.ones(x.shape[0] + 2, 1), (3, 6)),
    applied("one less than twice as many", lambda x: x.sum() * torch.ones(2 * x.shape[0] - 1), (3, 6)),
    applied("the product", lambda x, y: x.sum() * torch.arange(x.shape[0] * y.shape[0]), (3, 6), (2, 6)),
    applied("covariance", lambda x: (x - x.mean(0)).t() @ (x - x.mean(0)) / (x.shape[0] - 1), (3, 6)),
    applied("batchmean", lambda x, y: F.kl_div(x.log_softmax(1), y.softmax(1), reduction="batchmean"), (3, 4), (3, 4)),
    applied("mean of a loss", lambda x, y: F.mse_loss(x, y) + F.huber_loss(x, y), (3, 4), (3, 4)),
    applied("log-probability", lambda m, a: Normal(m, m.exp()).log_prob(a), (3, 4), (3, 4)),
    applied("entropy", lambda x: Categorical(logits=x).entropy(), (3, 4)),
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_sizes_as_numbers_are_proven(case: Case) -> None:
    assert_proven((case,), case)


def test_checks_of_distributions_are_as_they_were() -> None:
    translator.convert(Apply(lambda m, a: Normal(m, m.exp()).log_prob(a)), (torch.randn(2, 3), torch.randn(2, 3)))
    with pytest.raises(ValueError, match="constraint"):
        Normal(torch.zeros(1), -torch.ones(1))


@pytest.mark.parametrize("part", [nn.Linear(6, 4), nn.Embedding(6, 6)], ids=["linear", "table"])
def test_a_parameter_that_is_put_out_as_well_is_held_once(part: nn.Module) -> None:
    class Shown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = part

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return self.part(x), self.part.weight  # type: ignore[return-value]

    example = torch.randn(2, 6) if isinstance(part, nn.Linear) else torch.randint(0, 6, (2, 3))
    report = translator.convert(Shown(), example).report
    assert report.verdict is Verdict.EQUAL
    assert report.balance.keras_total == sum(p.numel() for p in part.parameters())
