"""One PyTorch module against its Keras operations: which setting differs, what it changes, and what mends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers, ops
from torch import nn

from translator.verdict import Effect
from translator.verify.configuration import compare_configuration

pytestmark = pytest.mark.audit

Build = Callable[[Any], Any]


def operations(build: Build, shape: tuple[int, ...]) -> list[keras.Operation]:
    x = keras.Input(shape)
    model = keras.Model(x, build(x))
    return [op for op in model.operations if not isinstance(op, layers.InputLayer)]


def found(module: nn.Module, build: Build, shape: tuple[int, ...], **options: Any) -> dict[str, Any]:
    torch_shape = (2, shape[-1], *shape[:-1])
    pairs = compare_configuration("it", module, operations(build, shape), input_shape=torch_shape, **options)
    assert all(d.layers == ("it",) for d in pairs)
    assert len({d.kind for d in pairs}) == len(pairs)
    return {d.kind: d for d in pairs}


def pad(amount: int, value: float = 0.0) -> Build:
    return lambda x: ops.pad(x, [[0, 0], [amount, amount], [amount, amount], [0, 0]], constant_values=value)


def then(*steps: Build) -> Build:
    def run(x: Any) -> Any:
        for step in steps:
            x = step(x)
        return x

    return run


C = layers.Conv2D
IMAGE = (32, 32, 3)

EQUAL: list[tuple[str, nn.Module, Build, tuple[int, ...]]] = [
    ("conv same at stride 1", nn.Conv2d(3, 8, 3, padding=1), C(8, 3, padding="same"), IMAGE),
    ("conv padded by a layer", nn.Conv2d(3, 8, 3, 2, 1), then(layers.ZeroPadding2D(1), C(8, 3, strides=2)), IMAGE),
    ("conv padded by a function", nn.Conv2d(3, 8, 3, 2, 1), then(pad(1), C(8, 3, strides=2)), IMAGE),
    ("conv 1x1 same at stride 2", nn.Conv2d(3, 8, 1, 2), C(8, 1, strides=2, padding="same"), IMAGE),
    ("conv same at stride 2, odd size", nn.Conv2d(3, 8, 3, 2, 1), C(8, 3, strides=2, padding="same"), (33, 33, 3)),
    ("conv dilated same", nn.Conv2d(3, 8, 3, padding=2, dilation=2), C(8, 3, padding="same", dilation_rate=2), IMAGE),
    ("conv padding='same', even kernel", nn.Conv2d(3, 8, 4, padding="same"), C(8, 4, padding="same"), IMAGE),
    ("grouped", nn.Conv2d(4, 8, 3, groups=2), C(8, 3, groups=2), (8, 8, 4)),
    ("depthwise", nn.Conv2d(4, 8, 3, groups=4), layers.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 4)),
    ("1-D", nn.Conv1d(3, 8, 3, padding=1), layers.Conv1D(8, 3, padding="same"), (16, 3)),
    ("transposed", nn.ConvTranspose2d(3, 8, 2, 2), layers.Conv2DTranspose(8, 2, 2, output_padding=0), IMAGE),
    ("max pool", nn.MaxPool2d(2), layers.MaxPooling2D(2), IMAGE),
    ("max pool padded", nn.MaxPool2d(3, 2, 1), then(pad(1, -np.inf), layers.MaxPooling2D(3, 2)), IMAGE),
    ("max pool same stride 1", nn.MaxPool2d(3, 1, 1), layers.MaxPooling2D(3, 1, padding="same"), IMAGE),
    (
        "max pool with ceil_mode",
        nn.MaxPool2d(3, 2, ceil_mode=True),
        then(
            lambda x: ops.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]], constant_values=-np.inf), layers.MaxPooling2D(3, 2)
        ),
        IMAGE,
    ),
    ("average pool counting", nn.AvgPool2d(3, 2, 1), then(pad(1), layers.AveragePooling2D(3, 2)), IMAGE),
    (
        "average pool not counting",
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        layers.AveragePooling2D(3, 1, padding="same"),
        IMAGE,
    ),
    ("global average", nn.AdaptiveAvgPool2d(1), layers.GlobalAveragePooling2D(keepdims=True), IMAGE),
    ("whole window for global", nn.AdaptiveAvgPool2d(1), layers.AveragePooling2D(32), IMAGE),
    ("one window, another stride", nn.AvgPool2d(32, 1), layers.AveragePooling2D(32), IMAGE),
    ("dense", nn.Linear(3, 8), layers.Dense(8), (3,)),
    ("dense as 1x1 conv", nn.Linear(3, 8), C(8, 1), IMAGE),
    ("batch norm", nn.BatchNorm2d(3), layers.BatchNormalization(epsilon=1e-5, momentum=0.9), IMAGE),
    ("layer norm", nn.LayerNorm(3), layers.LayerNormalization(epsilon=1e-5), (3,)),
    ("group norm", nn.GroupNorm(2, 4), layers.GroupNormalization(2, epsilon=1e-5), (8, 8, 4)),
    ("instance norm", nn.GroupNorm(4, 4), layers.GroupNormalization(-1, epsilon=1e-5), (8, 8, 4)),
    ("relu", nn.ReLU(), layers.Activation("relu"), (3,)),
    ("relu as function", nn.ReLU(), ops.relu, (3,)),
    ("relu6 as layer", nn.ReLU6(), layers.ReLU(6), (3,)),
    ("hardtanh as clip", nn.Hardtanh(-2, 2), lambda x: ops.clip(x, -2, 2), (3,)),
    ("leaky relu", nn.LeakyReLU(0.2), layers.LeakyReLU(0.2), (3,)),
    ("leaky relu as relu", nn.LeakyReLU(0.2), layers.ReLU(negative_slope=0.2), (3,)),
    ("gelu", nn.GELU(), layers.Activation("gelu"), (3,)),
    ("gelu tanh", nn.GELU("tanh"), lambda x: ops.gelu(x, approximate=True), (3,)),
    ("silu", nn.SiLU(), layers.Activation("swish"), (3,)),
    ("dropout", nn.Dropout(0.3), layers.Dropout(0.3), (3,)),
    ("channel dropout", nn.Dropout2d(0.3), layers.SpatialDropout2D(0.3), IMAGE),
    ("no dropout at rate 0", nn.Dropout(0.0), lambda x: x + 0.0, (3,)),
    ("upsampling", nn.Upsample(scale_factor=2), layers.UpSampling2D(2), IMAGE),
    ("gru", nn.GRU(3, 4, batch_first=True), layers.GRU(4, return_sequences=True), (5, 3)),
]


@pytest.mark.parametrize(("module", "build", "shape"), [row[1:] for row in EQUAL], ids=[row[0] for row in EQUAL])
def test_equal_configurations_give_no_difference(module: nn.Module, build: Build, shape: tuple[int, ...]) -> None:
    assert found(module, build, shape) == {}


BN = layers.BatchNormalization
DIFFERENT: list[tuple[str, nn.Module, Build, tuple[int, ...], Effect, str, str, str]] = [
    (
        "padding",
        nn.Conv2d(3, 8, 3, 2, 1),
        C(8, 3, strides=2, padding="same"),
        IMAGE,
        Effect.INFERENCE,
        "(1,1),(1,1)",
        "same=(0,1)",
        'ZeroPadding2D(1) in front, then Conv2D(padding="valid")',
    ),
    (
        "padding",
        nn.Conv2d(3, 8, 3),
        C(8, 3, padding="same"),
        IMAGE,
        Effect.INFERENCE,
        "(0,0),(0,0)",
        "same=(1,1)",
        'Conv2D(padding="valid")',
    ),
    (
        "padding",
        nn.Conv2d(3, 8, 3, 2, 1),
        then(layers.ZeroPadding2D(((1, 0), (1, 0))), C(8, 3, strides=2)),
        IMAGE,
        Effect.NOTHING,
        "(1,1),(1,1)",
        "(1,0),(1,0)",
        "ZeroPadding2D(1)",
    ),
    (
        "conv-bias",
        nn.Conv2d(3, 8, 3, bias=False),
        C(8, 3),
        IMAGE,
        Effect.TRAINING,
        "none",
        "a bias",
        "use_bias=False",
    ),
    (
        "conv-bias",
        nn.Conv2d(3, 8, 3),
        C(8, 3, use_bias=False),
        IMAGE,
        Effect.INFERENCE,
        "a bias",
        "none",
        "use_bias=True",
    ),
    ("dense-bias", nn.Linear(3, 8, bias=False), layers.Dense(8), (3,), Effect.TRAINING, "none", "a bias", "use_bias"),
    ("stride", nn.Conv2d(3, 8, 1, 2), C(8, 1), IMAGE, Effect.INFERENCE, "2×2", "1×1", "Conv2D(strides=2)"),
    ("dilation", nn.Conv2d(3, 8, 3, dilation=2), C(8, 3), IMAGE, Effect.INFERENCE, "2×2", "1×1", "dilation_rate"),
    ("kernel-size", nn.Conv2d(3, 8, 5), C(8, 3), IMAGE, Effect.INFERENCE, "5×5", "3×3", "kernel_size=(5, 5)"),
    ("groups", nn.Conv2d(4, 8, 3, groups=2), C(8, 3), (8, 8, 4), Effect.INFERENCE, "2", "1", "groups=2"),
    ("filters", nn.Conv2d(3, 8, 3), C(9, 3), IMAGE, Effect.INFERENCE, "8", "9", "Conv2D(8"),
    ("epsilon", nn.BatchNorm2d(3), BN(momentum=0.9), IMAGE, Effect.INFERENCE, "1e-05", "0.001", "epsilon=1e-05"),
    ("momentum", nn.BatchNorm2d(3), BN(epsilon=1e-5), IMAGE, Effect.TRAINING, "0.1 → 0.9", "0.99", "momentum=0.9"),
    (
        "norm-scale",
        nn.BatchNorm2d(3),
        BN(epsilon=1e-5, momentum=0.9, scale=False),
        IMAGE,
        Effect.TRAINING,
        "ones",
        "none",
        "scale=True",
    ),
    (
        "bn-statistics-used",
        nn.BatchNorm2d(3, track_running_stats=False),
        BN(epsilon=1e-5),
        IMAGE,
        Effect.INFERENCE,
        "the batch's own statistics",
        "running statistics",
        "",
    ),
    (
        "normalisation",
        nn.InstanceNorm2d(3),
        layers.LayerNormalization(epsilon=1e-5),
        IMAGE,
        Effect.INFERENCE,
        "instance",
        "layer",
        "",
    ),
    ("epsilon", nn.LayerNorm(3), layers.LayerNormalization(), (3,), Effect.INFERENCE, "1e-05", "0.001", "1e-05"),
    (
        "activation",
        nn.ReLU6(),
        layers.Activation("relu"),
        (3,),
        Effect.INFERENCE,
        "clip(max=6, min=0)",
        "relu",
        "clip",
    ),
    (
        "activation",
        nn.GELU(),
        lambda x: ops.gelu(x),
        (3,),
        Effect.INFERENCE,
        "gelu(approximate=False)",
        "gelu(approximate=True)",
        "approximate=False",
    ),
    (
        "activation",
        nn.LeakyReLU(),
        layers.LeakyReLU(),
        (3,),
        Effect.INFERENCE,
        "leaky_relu(negative_slope=0.01)",
        "leaky_relu(negative_slope=0.3)",
        "0.01",
    ),
    ("activation", nn.ReLU(), layers.Dense(4, "tanh"), (3,), Effect.INFERENCE, "relu", "tanh", "relu"),
    ("dropout", nn.Dropout(0.5), layers.Dropout(0.3), (3,), Effect.TRAINING, "0.5", "0.3", "Dropout(0.5)"),
    ("dropout", nn.Dropout(0.5), lambda x: x + 0.0, (3,), Effect.TRAINING, "0.5", "none", "Dropout(0.5)"),
    (
        "dropout-kind",
        nn.Dropout2d(0.5),
        layers.Dropout(0.5),
        IMAGE,
        Effect.TRAINING,
        "channel",
        "element",
        "",
    ),
    ("pooling", nn.MaxPool2d(2), layers.AveragePooling2D(2), IMAGE, Effect.INFERENCE, "max", "average", ""),
    ("pool-size", nn.MaxPool2d(2, 2), layers.MaxPooling2D(3, 2), IMAGE, Effect.INFERENCE, "2×2", "3×3", ""),
    (
        "padding",
        nn.MaxPool2d(3, 2, 1),
        layers.MaxPooling2D(3, 2, padding="same"),
        IMAGE,
        Effect.INFERENCE,
        "(1,1),(1,1)",
        "same=(0,1)",
        "constant_values=-inf",
    ),
    (
        "pooling-padding",
        nn.MaxPool2d(3, 2, 1),
        then(pad(1), layers.MaxPooling2D(3, 2)),
        IMAGE,
        Effect.INFERENCE,
        "padded with -inf",
        "padded with 0",
        "ops.pad",
    ),
    (
        "pooling-divisor",
        nn.AvgPool2d(3, 1, 1),
        layers.AveragePooling2D(3, 1, padding="same"),
        IMAGE,
        Effect.INFERENCE,
        "the padding counts",
        "the padding does not count",
        "ZeroPadding",
    ),
    (
        "padding",
        nn.MaxPool2d(3, 2, ceil_mode=True),
        layers.MaxPooling2D(3, 2),
        IMAGE,
        Effect.INFERENCE,
        "(0,0),(0,0) and ceil_mode",
        "(0,0),(0,0)",
        "ops.pad",
    ),
    (
        "rnn-biases",
        nn.LSTM(3, 4, batch_first=True),
        layers.LSTM(4, return_sequences=True),
        (5, 3),
        Effect.TRAINING,
        "2 per cell",
        "1 per cell",
        "",
    ),
    (
        "regulariser",
        nn.Linear(3, 8),
        layers.Dense(8, kernel_regularizer="l2"),
        (3,),
        Effect.TRAINING,
        "none",
        "kernel_regularizer: L2",
        "kernel_regularizer=None",
    ),
    (
        "data-type",
        nn.Linear(3, 8),
        layers.Dense(8, dtype="float16"),
        (3,),
        Effect.INFERENCE,
        "float32",
        "float16",
        'dtype="float32"',
    ),
    ("kind", nn.Linear(3, 8), layers.Activation("relu"), (3,), Effect.INFERENCE, "dense", "relu", ""),
]


@pytest.mark.parametrize(
    ("kind", "module", "build", "shape", "effect", "torch_text", "keras_text", "fix"),
    DIFFERENT,
    ids=[f"{row[0]}-{number}" for number, row in enumerate(DIFFERENT)],
)
def test_a_differing_setting_is_named_with_both_values_effect_and_fix(
    kind: str,
    module: nn.Module,
    build: Build,
    shape: tuple[int, ...],
    effect: Effect,
    torch_text: str,
    keras_text: str,
    fix: str,
) -> None:
    got = found(module, build, shape)
    assert set(got) == {kind}
    difference = got[kind]
    assert (difference.torch, difference.keras, difference.effect) == (torch_text, keras_text, effect)
    assert fix in difference.fix


def test_zero_padding_before_a_maximum_is_harmless_where_the_input_is_never_negative() -> None:
    build = then(pad(1), layers.MaxPooling2D(3, 2))
    got = found(nn.MaxPool2d(3, 2, 1), build, IMAGE, nonnegative=True)
    assert got["pooling-padding"].effect is Effect.NOTHING


def test_a_frozen_layer_is_named_on_either_side() -> None:
    frozen = nn.Linear(3, 8)
    frozen.requires_grad_(requires_grad=False)
    assert found(frozen, layers.Dense(8), (3,))["frozen"].torch == "frozen"
    assert found(nn.Linear(3, 8), layers.Dense(8, trainable=False), (3,))["frozen"].fix == "layer.trainable = True"


def test_initialisers_are_compared_only_on_request_and_only_where_the_weights_bear_them_out() -> None:
    fresh, trained = nn.Linear(40, 30), nn.Linear(40, 30)
    with torch.no_grad():
        trained.weight.mul_(3.1)
    want = 'kernel_initializer=VarianceScaling(1/3, "fan_in", "uniform")'
    assert found(fresh, layers.Dense(30), (40,)) == {}
    got = found(fresh, layers.Dense(30), (40,), initialisers=True)["initialiser"]
    assert (got.torch, got.keras, got.fix) == ("kaiming_uniform(a=√5)", "glorot_uniform", want)
    assert found(trained, layers.Dense(30), (40,), initialisers=True) == {}
    same = layers.Dense(30, kernel_initializer=keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"))
    assert found(fresh, same, (40,), initialisers=True) == {}


def test_a_layer_put_together_from_functions_is_left_to_the_numbers() -> None:
    assert found(nn.Softplus(beta=2.0), lambda x: ops.softplus(x * 2.0) / 2.0, (3,)) == {}
    assert found(nn.AdaptiveAvgPool2d(1), lambda x: ops.mean(x, axis=(1, 2)), IMAGE) == {}
