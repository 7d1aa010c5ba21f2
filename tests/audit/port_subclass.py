"""A residual network as a PyTorch user and a Keras user would write it, the Keras one by subclassing, blocks inside."""

from __future__ import annotations

from typing import Any

import keras
import torch
from keras import layers, ops
from torch import nn


class TorchBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x) * self.scale)


class TorchNet(nn.Module):
    def __init__(self, blocks: int = 2):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(TorchBlock(8) for _ in range(blocks))
        self.head = nn.Linear(8 * 4 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        x = nn.functional.max_pool2d(x, 2)
        return self.head(x.flatten(1))


class KerasBlock(layers.Layer):
    def __init__(self, channels: int, **options: Any):
        super().__init__(**options)
        self.first = layers.Conv2D(channels, 3, padding="same", use_bias=False)
        self.norm_a = layers.BatchNormalization(epsilon=1e-5, momentum=0.9)
        self.second = layers.Conv2D(channels, 3, padding="same", use_bias=False)
        self.norm_b = layers.BatchNormalization(epsilon=1e-5, momentum=0.9)
        self.scale = self.add_weight(shape=(channels,), name="scale", initializer="ones")

    def call(self, x: Any, training: bool | None = None) -> Any:
        y = ops.relu(self.norm_a(self.first(x), training=training))
        y = self.norm_b(self.second(y), training=training)
        return ops.relu(x + y * self.scale)


class KerasNet(keras.Model):
    def __init__(self, blocks: int = 2, **options: Any):
        super().__init__(**options)
        self.stem = layers.Conv2D(8, 3, padding="same", activation="relu")
        self.residual = [KerasBlock(8) for _ in range(blocks)]
        self.pool = layers.MaxPooling2D(2)
        self.head = keras.Sequential([layers.Flatten(), layers.Dense(5)])

    def call(self, x: Any, training: bool | None = None) -> Any:
        x = self.stem(x)
        for block in self.residual:
            x = block(x, training=training)
        return self.head(self.pool(x))


def keras_net(blocks: int = 2) -> KerasNet:
    model = KerasNet(blocks)
    model(ops.zeros((1, 8, 8, 3)))
    return model
