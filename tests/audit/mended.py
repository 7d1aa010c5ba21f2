"""The hand-written Keras network of models/cifar_resnet_keras.py after every line that the audit advises."""

from __future__ import annotations

import keras
from keras.initializers import VarianceScaling
from keras.layers import (
    Activation,
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Dense,
    Flatten,
    Input,
    ZeroPadding2D,
    add,
)


def as_torch() -> VarianceScaling:
    return VarianceScaling(1 / 3, "fan_in", "uniform")


def conv3x3(x: keras.KerasTensor, filters: int, strides: int = 1) -> keras.KerasTensor:
    padding = "same"
    if strides != 1:
        x = ZeroPadding2D(1)(x)
        padding = "valid"
    return Conv2D(filters, 3, strides=strides, padding=padding, use_bias=False, kernel_initializer=as_torch())(x)


def norm(x: keras.KerasTensor) -> keras.KerasTensor:
    return BatchNormalization(epsilon=1e-5, momentum=0.9)(x)


def residual_block(x: keras.KerasTensor, filters: int, strides: int = 1) -> keras.KerasTensor:
    out = Activation("relu")(norm(conv3x3(x, filters, strides)))
    out = norm(conv3x3(out, filters))
    residual = x
    if strides != 1 or x.shape[-1] != filters:
        residual = norm(conv3x3(x, filters, strides))
    return Activation("relu")(add([residual, out]))


def resnet() -> keras.Model:
    inputs = Input((32, 32, 3))
    x = Activation("relu")(norm(conv3x3(inputs, 16)))
    for filters, strides in ((16, 1), (16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
        x = residual_block(x, filters, strides)
    x = Flatten()(AveragePooling2D(8)(x))
    return keras.Model(inputs, Dense(10, kernel_initializer=as_torch())(x), name="mended")
