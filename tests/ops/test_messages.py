"""Messages along the edges of a graph with any number of nodes, and rows of a batch written by number."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import translator
from tests.ops.proving import Apply
from translator.verdict import Verdict

pytestmark = pytest.mark.op


def mean(h: Tensor, target: Tensor, message: Tensor) -> Tensor:
    total = torch.zeros_like(h).index_add(0, target, message)
    return total / torch.zeros(h.shape[0]).index_add(0, target, torch.ones(target.shape[0])).clamp(min=1)[:, None]


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "index_add": lambda h, target, message: torch.zeros_like(h).index_add(0, target, message),
    "in place": lambda h, target, message: h.new_zeros(h.size(0), 8).index_add_(0, target, message),
    "scatter_add": lambda h, t, message: torch.zeros_like(h).scatter_add(0, t[:, None].expand(-1, 8), message),
    "the largest": lambda h, t, m: torch.zeros_like(h).scatter_reduce(
        0, t[:, None].expand(-1, 8), m, "amax", include_self=False
    ),
    "index_put": lambda h, target, message: torch.zeros_like(h).index_put((target,), message, accumulate=True),
    "mean": mean,
}


class Passing(nn.Module):
    """One layer of a graph network: node features (N, 6), edges (2, E) from source to target."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.hidden, self.out, self.gather = nn.Linear(6, 8), nn.Linear(8, 3), WAYS[how]

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        h = self.hidden(x)
        return self.out(self.gather(h, edges[1], h[edges[0]]).relu())


@pytest.mark.parametrize("how", WAYS)
def test_messages_are_gathered_for_any_number_of_nodes(how: str) -> None:
    module = Passing(how).eval()
    done = translator.convert(module, (torch.randn(7, 6), torch.randint(0, 7, (2, 11))))
    assert done.report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)
    nodes, edges = torch.randn(12, 6), torch.randint(0, 12, (2, 11))
    got = keras.ops.convert_to_numpy(done.model([nodes.numpy(), edges.numpy()]))
    assert np.allclose(got, module(nodes, edges).detach().numpy(), rtol=1e-5, atol=1e-5)


def first_and_last(x: Tensor) -> Tensor:
    y = x.clone()
    y[0] = 1
    y[-1] = y[-1] * 2
    return y + x.mean()


def by_number(x: Tensor) -> Tensor:
    y = x * 2
    y[torch.arange(x.shape[0]), (x[:, 0] > 0).long()] = -1.0
    return y


@pytest.mark.parametrize("function", [first_and_last, by_number])
def test_rows_of_a_batch_are_written(function: Callable[[Tensor], Tensor]) -> None:
    report = translator.convert(Apply(function), torch.randn(3, 4)).report
    assert report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)
