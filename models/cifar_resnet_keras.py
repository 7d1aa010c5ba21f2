"""The CIFAR-10 residual network as somebody wrote it by hand in Keras, after the PyTorch one.

Its author left Keras' defaults on, so it is *not* the same function as `models/cifar_resnet.py`: the convolutions
have biases, BatchNormalization its own epsilon and momentum, "same" padding at stride 2 pads another border, and the
head ends in a softmax. 197,418 parameters, 196,298 of them trainable. `translator audit` finds and names all of it.
"""

from collections.abc import Sequence

import keras
from keras.layers import Activation, AveragePooling2D, BatchNormalization, Conv2D, Dense, Flatten, Input, add


def conv3x3(x: keras.KerasTensor, filters: int, strides: int = 1) -> keras.KerasTensor:
    """A 3x3 convolution with "same" padding."""
    return Conv2D(filters, kernel_size=3, strides=strides, padding="same")(x)


def residual_block(x: keras.KerasTensor, filters: int, strides: int = 1, downsample: bool = False) -> keras.KerasTensor:
    """conv BN ReLU conv BN, plus the identity or its downsampling, ReLU."""
    residual = x
    out = conv3x3(x, filters, strides)
    out = BatchNormalization()(out)
    out = Activation("relu")(out)
    out = conv3x3(out, filters)
    out = BatchNormalization()(out)
    if downsample:
        residual = conv3x3(x, filters, strides)
        residual = BatchNormalization()(residual)
    out = add([residual, out])
    return Activation("relu")(out)


def stage(x: keras.KerasTensor, filters: int, blocks: int, strides: int = 1) -> keras.KerasTensor:
    """`blocks` residual blocks; the first one changes the shape where it has to."""
    x = residual_block(x, filters, strides, downsample=strides != 1 or x.shape[-1] != filters)
    for _ in range(1, blocks):
        x = residual_block(x, filters)
    return x


def resnet(blocks: str | Sequence[int] = (2, 2, 2), num_classes: int = 10) -> keras.Model:
    """(N, 32, 32, 3) images → (N, num_classes) probabilities; `blocks` is `(3, 3, 3)` or the text "3,3,3"."""
    first, second, third = (int(count) for count in (blocks.split(",") if isinstance(blocks, str) else blocks))
    inputs = Input(shape=(32, 32, 3), name="input")
    x = conv3x3(inputs, 16)
    x = BatchNormalization()(x)
    x = Activation("relu")(x)
    x = stage(x, 16, first)
    x = stage(x, 32, second, strides=2)
    x = stage(x, 64, third, strides=2)
    x = AveragePooling2D(8)(x)
    x = Flatten()(x)
    outputs = Dense(num_classes, activation="softmax")(x)
    return keras.Model(inputs, outputs, name="resnet")
