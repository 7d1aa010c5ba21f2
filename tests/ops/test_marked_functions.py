"""Functions that the exporter refuses, breaks up or rounds, and that are marked or rewritten while PyTorch runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from torch import nn

import translator
from tests.ops.proving import Apply, Case, applied, assert_proven, randomised
from translator.verdict import Effect, Verdict


def test_an_instance_norm_with_running_statistics_is_a_batch_norm_that_trains_otherwise() -> None:
    module = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True, track_running_stats=True)))
    done = translator.convert(module, torch.randn(2, 3, 8, 8))
    assert done.report.verdict is Verdict.EXPLAINED
    assert [type(layer).__name__ for layer in done.model.layers][1:] == ["Conv2D", "BatchNormalization"]
    (found,) = [d for d in done.report.differences if d.kind == "normalisation"]
    assert (found.torch, found.keras, found.effect) == ("instance", "batch", Effect.TRAINING)


@pytest.mark.parametrize("bounds", [(), (0.1, 0.7)])
def test_a_random_leaky_relu_has_its_middle_slope_exactly(bounds: tuple[float, ...]) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.RReLU(*bounds)).eval()
    done = translator.convert(module, torch.randn(2, 3, 8, 8))
    assert done.model.layers[-1].negative_slope == sum(bounds or (1 / 8, 1 / 3)) / 2
    assert max(row.error_f64 or 0 for row in done.report.layers) < 1e-12


def test_a_setting_that_float32_can_not_hold_stays_a_double() -> None:
    slope = 1 / 3 + 1e-10
    done = translator.convert(nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(slope)), torch.randn(2, 3))
    assert done.report.verdict is Verdict.EQUAL
    assert done.model.layers[-1].negative_slope == slope


class Padded(nn.Module):
    """Paddings that add on one side and cut on the other, down to nothing of the input but its edge."""

    def forward(self, x: torch.Tensor, dot: torch.Tensor) -> tuple[torch.Tensor, ...]:
        widths = ((1, -1, 2, 0), (-2, 3, 1, 1), (-1, -2, 0, 2), (2, 1, -1, -1))
        modes = ("constant", "reflect", "replicate", "circular")
        padded = [nn.functional.pad(x, width, mode=mode) for width in widths for mode in modes]
        return (*padded, nn.functional.pad(dot, (1, -1, 2, 0), mode="replicate"))


def test_negative_padding_crops_in_every_mode() -> None:
    done = translator.convert(Padded().eval(), (torch.randn(2, 3, 5, 7), torch.randn(2, 1, 1, 1)))
    assert done.report.verdict is Verdict.EQUAL


RANGE = torch.tensor([[-800.0, -30.0, -1.0, -1e-3, 1e-9, 0.3, 25.0, 120.0]], dtype=torch.float64)
EXACT: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "log1p": lambda x: torch.log1p(x.abs()),
    "a method": lambda x: x.abs().log1p() * x.clamp(max=9).expm1(),
    "expm1": lambda x: torch.expm1(x.clamp(max=9)),
    "logsigmoid": nn.functional.logsigmoid,
    "logaddexp": lambda x: torch.logaddexp(x, x.flip(1) * 10),
    "logaddexp2": lambda x: torch.logaddexp2(x * 20, x.flip(1)),
    "hypot": lambda x: torch.hypot(x, x + 1),
    "deg2rad": torch.deg2rad,
    "rad2deg": torch.rad2deg,
    "sinc": lambda x: torch.sinc(x / 7) + torch.sinc(x - x),
    "of a constant": lambda x: x * torch.log1p(RANGE.abs()) + nn.functional.logsigmoid(RANGE) - torch.expm1(RANGE / 9),
}


class Moved(nn.Module):
    """x + 0, by a parameter in float64, so that the whole model computes in it."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(8, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.zero


@pytest.mark.parametrize("name", EXACT)
def test_no_digits_are_lost_where_the_exporter_would_lose_them(name: str) -> None:
    """Each number by itself: by the largest of them the small ones would be right whatever they are."""
    function = EXACT[name]
    module = nn.Sequential(Moved(), Apply(function)).eval()
    done = translator.convert(module, RANGE)
    assert done.report.verdict is Verdict.EQUAL
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(np.asarray(done.model(RANGE.numpy())), function(RANGE).numpy(), rtol=1e-13)


@pytest.mark.parametrize("function", [torch.logaddexp, torch.logaddexp2, torch.hypot], ids=lambda f: f.__name__)
def test_infinities_and_the_largest_numbers_are_as_in_pytorch(function: Callable[..., torch.Tensor]) -> None:
    """A mask's two -inf give -inf, not NaN; what can be held doesn't overflow on the way."""
    inf = float("inf")
    pairs = [
        (-inf, -inf),
        (-inf, 1.0),
        (inf, inf),
        (inf, -inf),
        (0.0, 0.0),
        (1e200, 1e200),
        (1e-200, 1e-200),
        (3, -inf),
    ]
    x = torch.tensor([pairs], dtype=torch.float64).mT
    run = Apply(lambda x: function(x[:, 0], x[:, 1]))
    model = translator.convert(nn.Sequential(Moved(), run).eval(), torch.randn(2, 2, 8).double(), proof=False).model
    np.testing.assert_allclose(np.asarray(model(x.numpy())), run(x).numpy(), rtol=1e-13)


def square(x: torch.Tensor) -> torch.Tensor:
    """(2, 5, 6) → matrices (2, 5, 5) that have an inverse."""
    return x @ x.mT + torch.eye(5)


TOKENS = (2, 5, 6)
MISSING: tuple[Case, ...] = (
    applied("cumprod", lambda x: torch.cumprod(x, 1) + x.cumprod(dim=-1), TOKENS),
    applied("erfinv", lambda x: torch.erfinv(x.tanh() * 0.9), TOKENS),
    applied("inverse", lambda x: torch.linalg.inv(square(x)) + square(x).inverse(), TOKENS),
    applied(
        "cholesky", lambda x: torch.linalg.cholesky(square(x)) + torch.linalg.cholesky(square(x), upper=True), TOKENS
    ),
    applied("solve", lambda x: torch.linalg.solve(square(x), x), TOKENS),
    applied("atan2", lambda x: torch.atan2(x, x[:, :1] + 0.3), TOKENS),
    applied("nan_to_num", lambda x: torch.nan_to_num(x.log()), TOKENS),
    applied("nan_to_num of given numbers", lambda x: x.log().nan_to_num(0.5, neginf=-7), TOKENS),
    applied("cdist", lambda x: torch.cdist(x, x.tanh()) + torch.cdist(x, x + 1, p=1.0), TOKENS),
    applied("median", lambda x: (x.median(1)[0], torch.median(x, -1, keepdim=True).values), TOKENS),
    applied("kthvalue", lambda x: (torch.kthvalue(x, 2, 1).values, x.kthvalue(3, keepdim=True)[0]), TOKENS),
    applied("searchsorted", lambda x: torch.searchsorted(torch.tensor([-1.0, 0, 1]), x), TOKENS),
    applied("searchsorted, right, by rows", lambda x: torch.searchsorted(x.sort(-1)[0], x, right=True), TOKENS),
    applied("masked_scatter", lambda x: x.masked_scatter(x > 0, x * 2), TOKENS),
    applied("isin", lambda x: torch.isin(x.round(), torch.tensor([0.0, 1.0]), invert=True), TOKENS),
    applied("column_stack", lambda x: torch.column_stack([x[:, 0], x[:, 1, 0]]), TOKENS),
    applied("norms of any order", lambda x: (x.norm(3, 1), torch.linalg.vector_norm(x, 2.5, -1)), TOKENS),
)


@pytest.mark.op
@pytest.mark.parametrize("one", MISSING, ids=lambda c: c.name)
def test_functions_that_the_exporter_has_no_translation_for_are_proven(one: Case) -> None:
    assert_proven(MISSING, one)


class Within(nn.Module):
    """A module called within one of PyTorch's contexts that change nothing here."""

    def __init__(self, context: Callable[[], AbstractContextManager[object]]) -> None:
        super().__init__()
        self.first, self.second, self.context = nn.Linear(6, 6), nn.Linear(6, 4), context

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        with self.context():
            y: torch.Tensor = self.second(x.float()).relu()
        return y * 2


CONTEXTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "autocast that is off": lambda: torch.autocast("cpu", enabled=False),
    "autocast of another device": lambda: torch.autocast("cuda", enabled=False),
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
}


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_module_within_a_context_is_proven_by_its_name(name: str) -> None:
    done = translator.convert(Within(CONTEXTS[name]).eval(), torch.randn(2, 6))
    assert done.report.verdict is Verdict.EQUAL
    assert {row.torch for row in done.report.layers} >= {"first", "second"}
