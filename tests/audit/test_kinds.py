"""Every kind of difference that an audit names, one pair for each: its layer, both values, its effect and its fix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from keras import layers, ops
from torch import nn

from tests.audit.building import Build, audited, chain, conv, norm, telling
from translator.verdict import Effect, Verdict

pytestmark = pytest.mark.audit

INF, TRAIN, NONE = Effect.INFERENCE, Effect.TRAINING, Effect.NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A pair, and the one difference that is to be said of it."""

    module: Callable[[], nn.Module]
    build: Callable[[], Build]
    kind: str
    layers: tuple[str, ...]
    effect: Effect
    torch: str
    keras: str
    fix: str = ""
    shape: tuple[int, ...] = (8, 8, 3)
    verdict: Verdict = Verdict.DIFFERENT


def frozen(module: nn.Module, name: str) -> nn.Module:
    module.get_submodule(name).requires_grad_(requires_grad=False)
    return module


class Block(nn.Module):
    """Two convolutions, one of which has the stride."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 1)
        self.conv2 = nn.Conv2d(4, 5, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(torch.relu(self.conv1(x)))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x + self.conv(x))


class Tied(nn.Module):
    """One matrix, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(6, 6)
        self.other = nn.Linear(6, 6)
        self.other.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.other(torch.tanh(self.one(x)))


class Called(nn.Module):
    """One layer, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(torch.tanh(self.one(x)))


class Last(nn.Module):
    """The last of a recurrent layer's results."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)[0]


def conv_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())


def conv_act(activation: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(3, 4, 3), activation, nn.Conv2d(4, 2, 1))


def act_conv(activation: Build) -> Callable[[], Build]:
    return lambda: conv(4, activation, layers.Conv2D(2, 1))


def pooled(pool: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(3, 4, 1), pool, nn.Conv2d(4, 2, 1))


def pool_between(*steps: Build) -> Callable[[], Build]:
    return lambda: chain(layers.Conv2D(4, 1), *steps, layers.Conv2D(2, 1))


CASES: dict[str, Case] = {
    "conv bias in PyTorch only": Case(
        module=lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), build=lambda: conv(4, ops.relu, use_bias=False),
        kind="conv-bias", layers=("0",), effect=INF, torch="a bias", keras="none", fix="use_bias=True",
    ),
    "conv bias in Keras only": Case(
        module=lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU()), build=lambda: conv(4, ops.relu),
        kind="conv-bias", layers=("0",), effect=TRAIN, torch="none", keras="a bias", fix="use_bias=False",
        verdict=Verdict.EXPLAINED,
    ),
    "dense bias in PyTorch only": Case(
        module=lambda: nn.Sequential(nn.Linear(6, 4)), build=lambda: layers.Dense(4, use_bias=False), shape=(6,),
        kind="dense-bias", layers=("0",), effect=INF, torch="a bias", keras="none", fix="use_bias=True",
    ),
    "BN without scale": Case(
        module=conv_norm, build=lambda: conv(4, norm(scale=False), ops.relu, use_bias=False),
        kind="norm-scale", layers=("1",), effect=INF, torch="ones", keras="none", fix="BatchNormalization(scale=True)",
    ),
    "BN without centre": Case(
        module=conv_norm, build=lambda: conv(4, norm(center=False), ops.relu, use_bias=False),
        kind="norm-centre", layers=("1",), effect=INF, torch="zeros", keras="none",
        fix="BatchNormalization(center=True)",
    ),
    "BN folded": Case(
        module=conv_norm, build=lambda: conv(4, ops.relu), kind="bn-folded", layers=("0",), effect=TRAIN,
        torch="BatchNorm", keras="folded into the kernel and bias before it",
        fix="Conv2D(use_bias=False), then BatchNormalization", verdict=Verdict.EXPLAINED,
    ),
    "epsilon": Case(
        module=conv_norm, build=lambda: conv(4, norm(epsilon=1e-3), ops.relu, use_bias=False),
        kind="epsilon", layers=("1",), effect=INF, torch="1e-05", keras="0.001",
        fix="BatchNormalization(epsilon=1e-05)",
    ),
    "momentum": Case(
        module=conv_norm, build=lambda: conv(4, norm(momentum=0.99), ops.relu, use_bias=False),
        kind="momentum", layers=("1",), effect=TRAIN, torch="0.1 → 0.9", keras="0.99",
        fix="BatchNormalization(momentum=0.9)", verdict=Verdict.EXPLAINED,
    ),
    "padding same at stride 2": Case(
        module=lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)), build=lambda: conv(4, strides=2, padding="same"),
        kind="padding", layers=("0",), effect=INF, torch="(1,1),(1,1)", keras="same=(0,1)",
        fix='ZeroPadding2D(1) in front, then Conv2D(padding="valid")',
    ),
    "padding on one side": Case(
        module=lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)),
        build=lambda: chain(layers.ZeroPadding2D(((0, 1), (0, 1))), layers.Conv2D(4, 3, 2)),
        kind="padding", layers=("0",), effect=INF, torch="(1,1),(1,1)", keras="(0,1),(0,1)",
        fix='ZeroPadding2D(1) in front, then Conv2D(padding="valid")',
    ),
    "padding valid": Case(
        module=lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), build=lambda: conv(4),
        kind="padding", layers=("0",), effect=INF, torch="(1,1),(1,1)", keras="(0,0),(0,0)",
        fix='ZeroPadding2D(1) in front, then Conv2D(padding="valid")',
    ),
    "stride in another conv of the block": Case(
        module=Block,
        build=lambda: chain(layers.Conv2D(4, 1, 2), ops.relu, layers.Conv2D(5, 3, padding="same")),
        kind="stride-placement", layers=("conv2", "conv1"), effect=INF, torch="in conv2", keras="in conv1",
        fix="strides=1 in one and strides=2 in the other",
    ),
    "dilation": Case(
        module=lambda: nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2)), build=lambda: conv(4),
        kind="dilation", layers=("0",), effect=INF, torch="2×2", keras="1×1", fix="Conv2D(dilation_rate=(2, 2))",
    ),
    "activation of another kind": Case(
        module=conv_act(nn.ReLU()), build=act_conv(ops.tanh), kind="activation", layers=("1",), effect=INF,
        torch="relu", keras="tanh", fix="Tanh: relu",
    ),
    "activation with another slope": Case(
        module=conv_act(nn.LeakyReLU()), build=act_conv(layers.LeakyReLU()), kind="activation", layers=("1",),
        effect=INF, torch="leaky_relu(negative_slope=0.01)", keras="leaky_relu(negative_slope=0.3)",
        fix="LeakyReLU: leaky_relu(negative_slope=0.01)",
    ),
    "activation approximated": Case(
        module=conv_act(nn.GELU()), build=act_conv(ops.gelu), kind="activation", layers=("1",), effect=INF,
        torch="gelu(approximate=False)", keras="gelu(approximate=True)", fix="Gelu: gelu(approximate=False)",
    ),
    "activation missing": Case(
        module=conv_act(nn.ReLU()), build=act_conv(lambda x: x), kind="missing-activation", layers=("1",), effect=INF,
        torch="relu", keras="none", fix='Activation("relu")',
    ),
    "pooling of another kind": Case(
        module=pooled(nn.MaxPool2d(2)), build=pool_between(layers.AveragePooling2D(2)), kind="pooling", layers=("1",),
        effect=INF, torch="max", keras="average",
    ),
    "pooling padded with zeros": Case(
        module=pooled(nn.MaxPool2d(3, 2, 1)), build=pool_between(layers.ZeroPadding2D(1), layers.MaxPooling2D(3, 2)),
        kind="pooling-padding", layers=("1",), effect=INF, torch="padded with -inf", keras="padded with 0",
        fix="ops.pad(x, …, constant_values=-inf) in place of the zero padding",
    ),
    "pooling that does not count its padding": Case(
        module=pooled(nn.AvgPool2d(3, 1, 1)), build=pool_between(layers.AveragePooling2D(3, 1, padding="same")),
        kind="pooling-divisor", layers=("1",), effect=INF, torch="the padding counts",
        keras="the padding does not count", fix="ZeroPadding in front, then padding=valid",
    ),
    "pooling with ceil_mode": Case(
        module=pooled(nn.MaxPool2d(3, 2, ceil_mode=True)), build=pool_between(layers.MaxPooling2D(3, 2)),
        kind="padding", layers=("1",), effect=INF, torch="(0,0),(0,0) and ceil_mode", keras="(0,0),(0,0)",
        fix='ops.pad(x, …, constant_values=-inf) in front, then MaxPooling2D(padding="valid")',
    ),
    "softmax in the head": Case(
        module=lambda: nn.Sequential(nn.Linear(6, 4)), build=lambda: layers.Dense(4, activation="softmax", name="last"),
        shape=(6,), kind="head", layers=("last",), effect=INF, torch="logits", keras="softmax",
        fix="activation=None, and from_logits=True in the loss",
    ),
    "Rescaling in front": Case(
        module=lambda: nn.Sequential(nn.Conv2d(3, 4, 3)),
        build=lambda: chain(layers.Rescaling(1 / 255, name="scaled"), layers.Conv2D(4, 3)), kind="preprocessing",
        layers=("scaled",), effect=INF, torch="none", keras="Rescaling(scale=0.00392156862745098, offset=0.0)",
        fix="take the layer out, or feed PyTorch what it makes",
    ),
    "Normalization in front": Case(
        module=lambda: nn.Sequential(nn.Conv2d(3, 4, 3)),
        build=lambda: chain(layers.Normalization(mean=0.5, variance=2.0, name="n"), layers.Conv2D(4, 3)),
        kind="preprocessing", layers=("n",), effect=INF, torch="none",
        keras="Normalization(mean and variance of its own)", fix="take the layer out, or feed PyTorch what it makes",
    ),
    "two biases in an RNN": Case(
        module=lambda: Last(nn.LSTM(3, 5, batch_first=True)), build=lambda: layers.LSTM(5, return_sequences=True),
        shape=(7, 3), kind="rnn-biases", layers=("inner",), effect=TRAIN, torch="2 per cell", keras="1 per cell",
        verdict=Verdict.EXPLAINED,
    ),
    "gates of an RNN": Case(
        module=lambda: Last(nn.GRU(3, 5, batch_first=True)),
        build=lambda: layers.GRU(5, return_sequences=True, recurrent_activation="hard_sigmoid"), shape=(7, 3),
        kind="gate-activation", layers=("inner",), effect=INF, torch="sigmoid", keras="hard_sigmoid",
        fix='GRU(recurrent_activation="sigmoid")',
    ),
    "weights tied in PyTorch": Case(
        module=Tied, build=lambda: chain(layers.Dense(6), ops.tanh, layers.Dense(6)), shape=(6,), kind="tied-weights",
        layers=("one",), effect=TRAIN, torch="one tensor", keras="separate variables",
        fix="call one layer twice, or share its variable", verdict=Verdict.EXPLAINED,
    ),
    "a layer shared in PyTorch": Case(
        module=Called, build=lambda: chain(layers.Dense(6), ops.tanh, layers.Dense(6)), shape=(6,), kind="tied-weights",
        layers=("one",), effect=TRAIN, torch="one tensor", keras="separate variables",
        fix="call one layer twice, or share its variable", verdict=Verdict.EXPLAINED,
    ),
    "a residual missing": Case(
        module=Residual, build=lambda: conv(3, layers.Conv2D(2, 1), padding="same"), kind="missing-layer",
        layers=("(model)",), effect=INF, torch="add", keras="none", fix="add([…])",
    ),
    "a layer more": Case(
        module=lambda: nn.Sequential(nn.Conv2d(3, 4, 3)), build=lambda: conv(4, layers.Conv2D(4, 1, name="more")),
        kind="extra-layer", layers=("more",), effect=INF, torch="none", keras="convolution", fix="take the layer out",
    ),
    "frozen in PyTorch": Case(
        module=lambda: frozen(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "0"), build=lambda: conv(4, ops.relu),
        kind="frozen", layers=("0",), effect=TRAIN, torch="frozen", keras="trainable", fix="layer.trainable = False",
        verdict=Verdict.EXPLAINED,
    ),
    "frozen in Keras": Case(
        module=lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), build=lambda: conv(4, ops.relu, trainable=False),
        kind="frozen", layers=("0",), effect=TRAIN, torch="trainable", keras="frozen", fix="layer.trainable = True",
        verdict=Verdict.EXPLAINED,
    ),
    "data type": Case(
        module=lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), build=lambda: conv(4, ops.relu, dtype="float64"),
        kind="data-type", layers=("0",), effect=NONE, torch="float32", keras="float64", fix='dtype="float32"',
        verdict=Verdict.EXPLAINED,
    ),
    "dropout at another rate": Case(
        module=conv_act(nn.Dropout(0.5)), build=act_conv(layers.Dropout(0.3)), kind="dropout", layers=("1",),
        effect=TRAIN, torch="0.5", keras="0.3", fix="Dropout(0.5)", verdict=Verdict.EXPLAINED,
    ),
    "dropout missing": Case(
        module=conv_act(nn.Dropout(0.5)), build=act_conv(lambda x: x), kind="dropout", layers=("1",), effect=TRAIN,
        torch="0.5", keras="none", fix="Dropout(0.5)", verdict=Verdict.EXPLAINED,
    ),
    "dropout of whole maps": Case(
        module=conv_act(nn.Dropout2d(0.5)), build=act_conv(layers.Dropout(0.5)), kind="dropout-kind", layers=("1",),
        effect=TRAIN, torch="channel", keras="element", verdict=Verdict.EXPLAINED,
    ),
    "regulariser": Case(
        module=lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()),
        build=lambda: conv(4, ops.relu, kernel_regularizer="l2"), kind="regulariser", layers=("0",), effect=TRAIN,
        torch="none", keras="kernel_regularizer: L2",
        fix="kernel_regularizer=None (weight decay belongs to PyTorch's optimizer)", verdict=Verdict.EXPLAINED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_difference_is_named_and_nothing_else_is(case: Case) -> None:
    report = audited(case.module(), case.build(), case.shape)
    assert [(d.kind, d.layers, d.effect, d.torch, d.keras, d.fix) for d in telling(report)] == [
        (case.kind, case.layers, case.effect, case.torch, case.keras, case.fix)
    ]
    assert report.verdict is case.verdict
    assert report.balance.unexplained == 0
