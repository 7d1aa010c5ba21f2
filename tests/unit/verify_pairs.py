"""Small networks written by hand in both frameworks, with their claims: what the judge is tested on.

Nothing here comes from the translator. A `Pair` keeps how each Keras variable is made of PyTorch tensors, and from
that follow the weights, the parameter claims and `load_state`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import keras
import numpy as np
import torch
from keras import layers
from torch import nn

from translator.claims import Claims, KerasValue, ModuleClaim, ParameterClaim, ValueClaim
from translator.types import Layout
from translator.verdict import Report, Verdict
from translator.verify.proof import ProofOptions, Subject, prove

PLAIN2, PLAIN3 = Layout.identity(2), Layout.identity(3)
NHWC = Layout.channels_last(4)
State = Mapping[str, np.ndarray]
Make = Callable[..., np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One Keras variable: its layer's path, the attribute, the tensors, and how their arrays become its value."""

    layer: str
    variable: str
    tensors: tuple[str, ...]
    make: Make
    how: str = "same"
    counts: tuple[int, ...] = ()


@dataclass(kw_only=True)
class Pair:
    """A PyTorch module, its Keras twin, the example, and the claims."""

    module: nn.Module
    model: keras.Model
    example: tuple[torch.Tensor, ...]
    weights: list[Weight]
    inputs: tuple[ValueClaim | None, ...]
    outputs: tuple[ValueClaim | None, ...]
    modules: list[ModuleClaim]
    aliases: dict[str, str] = field(default_factory=dict)

    @property
    def claims(self) -> Claims:
        return Claims(
            inputs=self.inputs,
            outputs=self.outputs,
            modules=tuple(self.modules),
            parameters=tuple(
                ParameterClaim(layer=w.layer, variable=w.variable, tensors=w.tensors, how=w.how, counts=w.counts)
                for w in self.weights
            ),
            aliases=self.aliases,
        )

    def layer(self, path: str) -> keras.layers.Layer:
        found = self.model
        for part in path.split("/"):
            found = found.get_layer(part)
        return found

    def variable(self, layer: str, name: str) -> keras.Variable:
        found = self.layer(layer)
        for part in name.split("."):
            found = getattr(found, part)
        return found

    def load(self, state: State) -> None:
        for w in self.weights:
            value = w.make(*(state[t] for t in w.tensors))
            if w.counts == () or len(w.tensors) == 1:
                self.variable(w.layer, w.variable).assign(value)

    def load_own(self) -> Pair:
        self.load(
            {
                k: v.detach().numpy()
                for k, v in [
                    *self.module.named_parameters(remove_duplicate=False),
                    *self.module.named_buffers(remove_duplicate=False),
                ]
            }
        )
        return self

    def prove(self, *, claims: Claims | None = None, load: bool = True, **options: object) -> Report:
        subject = Subject(keras_model=self.model, claims=claims or self.claims, load_state=self.load if load else None)
        return prove(self.module, self.example, subject, ProofOptions(**options))

    def change(self, path: str, call: int = 0, **changes: object) -> None:
        """Change the claim for one module call."""
        number = next(i for i, m in enumerate(self.modules) if (m.path, m.call) == (path, call))
        self.modules[number] = replace(self.modules[number], **changes)


def value(operation: str, layout: Layout = NHWC, *, call: int = 0, tensor: int = 0) -> ValueClaim:
    return ValueClaim(keras=KerasValue(operation=operation, call=call, tensor=tensor), layout=layout)


def twin(path: str, call: int, given: ValueClaim | Sequence[ValueClaim], result: ValueClaim) -> ModuleClaim:
    inputs = (given,) if isinstance(given, ValueClaim) else tuple(given)
    return ModuleClaim(path=path, call=call, inputs=inputs, outputs=(result,))


def conv(layer: str, module: str, *, bias: bool = False) -> list[Weight]:
    found = [
        Weight(layer=layer, variable="kernel", tensors=(f"{module}.weight",), make=lambda w: w.transpose(2, 3, 1, 0))
    ]
    if bias:
        found.append(Weight(layer=layer, variable="bias", tensors=(f"{module}.bias",), make=lambda b: b))
    return found


def norm(layer: str, module: str) -> list[Weight]:
    names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    return [Weight(layer=layer, variable=k, tensors=(f"{module}.{t}",), make=lambda x: x) for k, t in names.items()]


def scatter(module: nn.Module, rng: np.random.Generator) -> None:
    """BN statistics far from 0 and 1, scales and shifts that differ."""
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                (child.weight, 0.5, 1.5), (child.bias, -1, 1), (child.running_mean, -1, 1), (child.running_var, 0.3, 3),
            ):  # fmt: skip
                tensor.data.copy_(torch.from_numpy(rng.uniform(low, high, tuple(tensor.shape)).astype("float32")))


class Residual(nn.Module):
    """conv BN ReLU, a residual block (one ReLU object, twice, in place; the sum in place), pool, flatten, dense."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.block = Block(6)
        self.depthwise = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.relu6 = nn.ReLU6()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.flatten = nn.Flatten()
        self.drop = nn.Dropout(0.25)
        self.fc = nn.Linear(12 * 4 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block(self.bn(self.stem(x)))
        return self.fc(self.drop(self.flatten(self.pool(self.relu6(self.depthwise(x))))))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        return self.relu(out)


BN = {"epsilon": 1e-5, "momentum": 0.9}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a planted fault changes in the Keras network."""

    stem_padding: str = "pad"
    bn: Mapping[str, float] = field(default_factory=lambda: dict(BN))
    relu6_max: float | None = 6.0
    pool_fill: str = "minus infinity"
    depthwise_bias: bool = True
    dropout: float | None = 0.25
    flatten_rows: str = "permuted"
    shortcut: str = "x"


def residual_pair(rng: np.random.Generator, settings: Settings = Settings(), *, fresh: bool = False) -> Pair:
    s = settings
    module = Residual().eval()
    if not fresh:
        scatter(module, rng)
    image = keras.Input((16, 16, 3), name="image")
    if s.stem_padding == "pad":
        x = layers.ZeroPadding2D(1, name="stem_pad")(image)
        x = layers.Conv2D(6, 3, strides=2, use_bias=False, name="stem")(x)
    else:
        x = layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False, name="stem")(image)
    x = start = layers.BatchNormalization(**s.bn, name="bn")(x)
    relu = layers.ReLU(name="block_relu")
    x = conv1 = layers.Conv2D(6, 3, padding="same", use_bias=False, name="block_conv1")(x)
    x = relu(layers.BatchNormalization(**BN, name="block_bn1")(x))
    x = layers.Conv2D(6, 3, padding="same", use_bias=False, name="block_conv2")(x)
    x = layers.BatchNormalization(**BN, name="block_bn2")(x)
    x = relu(layers.Add(name="block_add")([x, start if s.shortcut == "x" else conv1]))
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, use_bias=s.depthwise_bias, name="depthwise")(x)
    x = layers.ReLU(max_value=s.relu6_max, name="relu6")(x)
    if s.pool_fill == "minus infinity":
        x = keras.ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=float("-inf"))
    else:
        x = layers.ZeroPadding2D(1)(x)
    x = layers.MaxPooling2D(3, 2, name="pool")(x)
    x = layers.Flatten(name="flatten")(x)
    if s.dropout is not None:
        x = layers.Dropout(s.dropout, name="drop")(x)
    model = keras.Model(image, layers.Dense(5, name="fc")(x), name="twin")

    def rows(w: np.ndarray) -> np.ndarray:
        if s.flatten_rows != "permuted":
            return w.T
        return w.reshape(5, 12, 4, 4).transpose(2, 3, 1, 0).reshape(192, 5)

    def by_channel(w: np.ndarray) -> np.ndarray:
        return w.reshape(6, 2, 3, 3).transpose(2, 3, 0, 1)

    weights = [
        *conv("stem", "stem"), *norm("bn", "bn"),
        *conv("block_conv1", "block.conv1"), *norm("block_bn1", "block.bn1"),
        *conv("block_conv2", "block.conv2"), *norm("block_bn2", "block.bn2"),
        Weight(layer="depthwise", variable="kernel", tensors=("depthwise.weight",), make=by_channel),
        Weight(layer="fc", variable="kernel", tensors=("fc.weight",), make=rows),
        Weight(layer="fc", variable="bias", tensors=("fc.bias",), make=lambda b: b),
    ]  # fmt: skip
    if s.depthwise_bias:
        weights.append(Weight(layer="depthwise", variable="bias", tensors=("depthwise.bias",), make=lambda b: b))
    flat, plain = Layout(axes=(0, 2, 3, 1), view=(None, 12, 4, 4)), Layout.identity(2)
    dropped = value("drop", flat) if s.dropout is not None else value("flatten", flat)
    modules = [
        twin("stem", 0, value("image"), value("stem")),
        twin("bn", 0, value("stem"), value("bn")),
        twin("block", 0, value("bn"), value("block_relu", call=1)),
        twin("block.conv1", 0, value("bn"), value("block_conv1")),
        twin("block.bn1", 0, value("block_conv1"), value("block_bn1")),
        twin("block.relu", 0, value("block_bn1"), value("block_relu")),
        twin("block.conv2", 0, value("block_relu"), value("block_conv2")),
        twin("block.bn2", 0, value("block_conv2"), value("block_bn2")),
        twin("block.relu", 1, value("block_add"), value("block_relu", call=1)),
        twin("depthwise", 0, value("block_relu", call=1), value("depthwise")),
        twin("relu6", 0, value("depthwise"), value("relu6")),
        twin("pool", 0, value("relu6"), value("pool")),
        twin("flatten", 0, value("pool"), value("flatten", flat)),
        twin("drop", 0, value("flatten", flat), dropped),
        twin("fc", 0, dropped, value("fc", plain)),
    ]
    pair = Pair(
        module=module, model=model, example=(torch.zeros(1, 3, 16, 16),), weights=weights, inputs=(value("image"),),
        outputs=(value("fc", plain),), modules=modules,
    )  # fmt: skip
    return pair.load_own()


def dense(layer: str, module: str) -> list[Weight]:
    return [
        Weight(layer=layer, variable="kernel", tensors=(f"{module}.weight",), make=lambda w: w.T),
        Weight(layer=layer, variable="bias", tensors=(f"{module}.bias",), make=lambda b: b),
    ]


def accepted(report: Report) -> bool:
    wrong = [c for c in report.checks if not c.ok]
    assert report.verdict is not Verdict.DIFFERENT, (wrong, report.differences)
    assert report.first_wrong == ""
    return True
