"""A small network with its Keras twin, and recipes to train both with."""

from __future__ import annotations

import keras
import torch
from torch import nn

from translator.training.batchnorm import with_exact_batchnorm
from translator.training.parity import ParityOptions, TorchRecipe

QUICK = ParityOptions(steps=4, batch=6, float32=False)


class Net(nn.Module):
    """conv BN ReLU, and a linear head on the flattened map."""

    def __init__(self, head=5):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 6 * 6, head)

    def forward(self, x):
        return self.fc(torch.relu(self.bn(self.conv(x))).flatten(1))


def twin(*, momentum=0.9, epsilon=1e-5, activation=None, bias=False, exact=False):
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=bias, name="conv")(inputs)
    x = keras.layers.BatchNormalization(momentum=momentum, epsilon=epsilon, name="bn")(x)
    x = keras.layers.Flatten()(keras.layers.ReLU()(x))
    model = keras.Model(inputs, keras.layers.Dense(5, activation=activation, name="fc")(x), name="twin")
    return with_exact_batchnorm(model) if exact else model


def compiled(model, *, loss=None, optimizer=None):
    model.compile(
        loss=loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=optimizer or keras.optimizers.SGD(0.01, momentum=0.9),
    )
    return model


def adam(module):
    return torch.optim.Adam(module.parameters(), lr=1e-3)


ADAM = TorchRecipe(loss=nn.CrossEntropyLoss(), optimizer=adam)
SGD = TorchRecipe(
    loss=nn.CrossEntropyLoss(), optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9)
)


def kinds(report):
    return {d.kind for d in report.differences if not d.allowed}
