"""Small Keras classes that compute what PyTorch computes, where Keras has no class of its own that does.

All are registered in the package "translator", so a file that uses them loads once this package is imported:
`import translator.training.registered`. They need Keras alone, neither PyTorch nor the rest of the translator.
"""

from translator.training.registered.batchnorm import ExactBatchNormalization
from translator.training.registered.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryCrossEntropyWithLogits,
    CrossEntropy,
    HuberError,
    SmoothL1,
    SquaredError,
)
from translator.training.registered.optimizers import TorchAdam, TorchAdamW, TorchRMSprop, TorchSGD
from translator.training.registered.schedules import (
    CosineAnnealing,
    EpochDecay,
    EpochTable,
    OneCycle,
    Scaled,
)

__all__ = [
    "AbsoluteError",
    "BinaryCrossEntropy",
    "BinaryCrossEntropyWithLogits",
    "CosineAnnealing",
    "CrossEntropy",
    "EpochDecay",
    "EpochTable",
    "ExactBatchNormalization",
    "HuberError",
    "OneCycle",
    "Scaled",
    "SmoothL1",
    "SquaredError",
    "TorchAdam",
    "TorchAdamW",
    "TorchRMSprop",
    "TorchSGD",
]
