"""Activations, with the settings whose defaults differ between PyTorch and Keras, and arithmetic."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.ops.proving import Case, applied, assert_proven, case

pytestmark = pytest.mark.op

X = (2, 4, 5, 3)

MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, partial(nn.LeakyReLU, 0.3), nn.ELU, partial(nn.ELU, 0.7), nn.SELU, nn.CELU,
    partial(nn.CELU, 0.6), nn.GELU, partial(nn.GELU, approximate="tanh"), nn.Sigmoid, nn.Tanh, nn.SiLU, nn.Mish,
    nn.Softplus, partial(nn.Softplus, 2.0), nn.Softsign, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh,
    partial(nn.Hardtanh, -0.3, 0.6), nn.LogSigmoid, nn.Tanhshrink, nn.Softshrink, partial(nn.Softshrink, 0.3),
    nn.Hardshrink, partial(nn.Threshold, 0.2, -0.5), partial(nn.Softmax, -1), partial(nn.Softmax, 1),
    partial(nn.LogSoftmax, 1), partial(nn.Softmin, 2), partial(nn.GLU, 1), partial(nn.PReLU, 4), nn.PReLU,
)  # fmt: skip

ACTIVATIONS: tuple[Case, ...] = tuple(
    case(f"{i} {getattr(m, 'func', m).__name__}{getattr(m, 'args', ())}", m, X) for i, m in enumerate(MODULES)
)

ARITHMETIC: tuple[Case, ...] = (
    applied("add", lambda a, b: a + b, X, X),
    applied("add a tensor of lower rank", lambda a, b: a + b, X, (5, 3)),
    applied("subtract from a number", lambda a: 1.5 - a, X),
    applied("multiply by 0.1", lambda a: a * 0.1, X),
    applied("multiply by itself", lambda a: a * a, X),
    applied("divide", lambda a, b: a / (b.abs() + 1.0), X, X),
    applied("floor divide", lambda a: a // 0.3, X),
    applied("power", lambda a: a**3, X),
    applied("square root", lambda a: (a.abs() + 0.1) ** 0.5, X),
    applied("power of two tensors", lambda a, b: (a.abs() + 0.5) ** b, X, X),
    applied("remainder", lambda a: torch.remainder(a, 0.7), X),
    applied("fmod", lambda a: torch.fmod(a, 0.7), X),
    applied("maximum", torch.maximum, X, X),
    applied("minimum with a number", lambda a: a.clamp(max=0.3), X),
    applied("clamp", lambda a: a.clamp(-0.3, 0.6), X),
    applied("clamp between tensors", lambda a, b: torch.minimum(torch.maximum(a, -b.abs()), b.abs()), X, X),
    applied("where", lambda a, b: torch.where(a > b, a, 2 * b), X, X),
    applied("masked fill", lambda a: a.masked_fill(a < 0, 0.25), X),
    applied("lerp", lambda a, b: torch.lerp(a, b, 0.3), X, X),
    applied("addcmul", lambda a, b: torch.addcmul(a, a, b, value=0.4), X, X),
    applied(
        "exp, log and friends",
        lambda a: torch.exp(a) + torch.log(a.abs() + 1) + torch.log1p(a.abs()) + torch.expm1(a),
        X,
    ),
    applied("trigonometry", lambda a: torch.sin(a) + torch.cos(a) + torch.tan(a * 0.3) + torch.atan(a), X),
    applied("sinh", torch.sinh, X),
    applied("cosh", torch.cosh, X),
    applied("asinh", torch.asinh, X),
    applied("rounding", lambda a: torch.floor(a) + torch.ceil(3 * a) + torch.round(5 * a) + torch.trunc(7 * a), X),
    applied("erf and rsqrt", lambda a: torch.erf(a) + torch.rsqrt(a.abs() + 0.5) + torch.reciprocal(a.abs() + 1), X),
    applied("sign and abs", lambda a: torch.sign(a) * a.abs(), X),
    applied("comparison as a number", lambda a, b: (a > b).float() + (a <= b).float() * 2, X, X),
    applied("logic", lambda a, b: ((a > 0) & (b > 0) | ~(a > b)).float() * a, X, X),
    applied("swish by hand", lambda a: a * torch.sigmoid(a), X),
    applied("swish with a factor", lambda a: a * torch.sigmoid(1.702 * a), X),
    case("softmax of six axes", lambda: nn.Softmax(2), (2, 3, 2, 2, 3, 2)),
    applied("softplus over a threshold", lambda a: F.softplus(a, beta=1, threshold=1), X),
)


@pytest.mark.parametrize("one", ACTIVATIONS, ids=lambda c: c.name)
def test_activations_are_proven(one: Case) -> None:
    assert_proven(ACTIVATIONS, one)


@pytest.mark.parametrize("one", ARITHMETIC, ids=lambda c: c.name)
def test_arithmetic_is_proven(one: Case) -> None:
    assert_proven(ARITHMETIC, one)
