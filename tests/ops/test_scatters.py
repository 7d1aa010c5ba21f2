"""Elements replaced in place, as people write it, for a batch that stays dynamic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import translator
from tests.ops.proving import Apply, Case, applied, assert_proven, prove_cases
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


def written(change: Callable[[Tensor, Tensor], object]) -> Callable[[Tensor], Tensor]:
    """What becomes of 2x when `change` writes into it; x is the other argument."""

    def run(x: Tensor) -> Tensor:
        y = x * 2
        change(y, x)
        return y.tanh()

    return run


def put(key: object, value: Callable[[Tensor, Tensor], object]) -> Callable[[Tensor, Tensor], object]:
    return lambda y, x: y.__setitem__(key, value(y, x))


def add(key: object, value: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], object]:
    """`y[key] += …` is an addition in place, and then the part is written a second time."""

    def change(y: Tensor, x: Tensor) -> None:
        y[key] += value(x)

    return change


ALL = slice(None)
IMAGE = (2, 4, 5, 7)
WRITES: dict[str, tuple[tuple[int, ...], Callable[[Tensor, Tensor], object]]] = {
    "added to a corner": (IMAGE, add((ALL, ALL, slice(1, None), slice(1, None)), lambda x: x[:, :, :-1, :-1])),
    "added to some channels": (IMAGE, add((ALL, slice(1, 3)), lambda x: x[:, :2].sin())),
    "added in a cube": ((2, 3, 3, 3), add((ALL, ALL, ALL, slice(0, 2)), lambda x: x[:, 1:3].permute(0, 3, 2, 1))),
    "a part of itself, elsewhere": (IMAGE, put((ALL, slice(0, 2)), lambda y, x: y[:, 1:3].clone())),
    "itself, where it was": (IMAGE, put((ALL, slice(1, 3)), lambda y, x: y[:, 1:3].clone())),
    "where it was, of another": (IMAGE, put((ALL, slice(1, 3)), lambda y, x: x[:, 1:3])),
    "where it was, along another axis": (
        (2, 3, 3, 3),
        put((ALL, slice(1, 3)), lambda y, x: y[:, :, 1:3].transpose(1, 2).clone()),
    ),
    "every second": (IMAGE, put((ALL, slice(0, None, 2)), lambda y, x: x[:, 2:])),
    "the last": (IMAGE, put((ALL, ALL, -1), lambda y, x: x[:, :, 0])),
    "all": (IMAGE, put((ALL, slice(0, 9)), lambda y, x: x.exp())),
    "one number": (IMAGE, put((ALL, ALL, slice(2, 4)), lambda y, x: 0.5)),
    "a table": (IMAGE, put((ALL, ALL, slice(2, 4)), lambda y, x: torch.arange(14.0).view(2, 7) / 14)),
}


CASES = (
    *(applied(f"written: {name}", written(change), shape) for name, (shape, change) in WRITES.items()),
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


@pytest.mark.parametrize(("name", "count"), [
    ("added to a corner", 2), ("added to some channels", 1), ("itself, where it was", 0),
    ("where it was, of another", 1), ("a part of itself, elsewhere", 1), ("all", 0),
])  # fmt: skip
def test_what_is_written_is_put_between_the_rest_and_only_once(name: str, count: int) -> None:
    _, plan = prove_cases(CASES)
    path = f"cases.{list(WRITES).index(name)}"
    ops = [getattr(call, "op", "") for call in plan.calls if call.origin.module == path]
    assert ops.count("concatenate") == count
    assert not {"transpose", "scatter_update"} & set(ops)


def test_more_places_than_are_written_out_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="a scatter along a dynamic size"):
        translator.convert(Apply(lambda x: x.scatter(1, (x > 0).long(), x)), torch.randn(2, 40))


def test_one_tensor_given_as_two_inputs_is_two_inputs() -> None:
    x = torch.randn(2, 3)
    report = translator.convert(Apply(lambda a, b: a.tanh() - b), (x, x)).report
    assert report.verdict is Verdict.EQUAL
