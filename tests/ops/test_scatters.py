"""Elements replaced in place, as people write it, for a batch that stays dynamic."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import translator
from tests.ops.proving import Apply, Case, applied, assert_proven
from translator.errors import UnsupportedError
from translator.verdict import Verdict

pytestmark = pytest.mark.op

X = (2, 5, 6)


def shifted(x: Tensor) -> Tensor:
    """Everything one to the right and a number at the front, as decoders make their inputs."""
    y = torch.zeros_like(x)
    y[:, 1:] = x[:, :-1].clone()
    y[:, 0] = 0.25
    return y


def gated(x: Tensor) -> Tensor:
    """The two largest of each row, where they stood, as a mixture of experts weighs them."""
    x = x + torch.arange(6.0) * 0.125  # of equal numbers PyTorch takes any
    values, places = x.topk(2, dim=-1)
    return torch.zeros_like(x).scatter(-1, places, values.softmax(-1))


def counted(x: Tensor, reduce: str) -> Tensor:
    places = (x[:, :3] > 0).long() - 1
    return x.scatter_reduce(1, places % 5, x[:, 2:] + 0.5, reduce=reduce)


CASES = (
    applied("shifted to the right", shifted, X),
    applied("one channel set", lambda x: torch.select_scatter(x, x[:, 0] * 2, 1, -2), X),
    applied("the largest two kept", gated, X),
    applied("one-hot", lambda x: torch.zeros_like(x).scatter_(2, x.argmax(2, keepdim=True), 1.0), X),
    applied("scatter add", lambda x: x.scatter_add(2, (x[:, :, :3] > 0).long(), x[:, :, 1:4]), X),
    applied("scatter prod", lambda x: counted(x, "prod"), X),
    applied("scatter amax", lambda x: counted(x, "amax"), X),
    applied("scatter amin", lambda x: counted(x, "amin"), X),
)


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_scatter_is_proven(one: Case) -> None:
    assert_proven(CASES, one)


def test_more_places_than_are_written_out_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="a scatter along a dynamic size"):
        translator.convert(Apply(lambda x: x.scatter(1, (x > 0).long(), x)), torch.randn(2, 40))


def test_one_tensor_given_as_two_inputs_is_two_inputs() -> None:
    x = torch.randn(2, 3)
    report = translator.convert(Apply(lambda a, b: a.tanh() - b), (x, x)).report
    assert report.verdict is Verdict.EQUAL
