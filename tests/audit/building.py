"""Pairs made of a module and of steps that build its Keras port, audited as architectures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import torch
from keras import layers
from torch import nn

import translator
from translator.audit.api import AuditOptions
from translator.verdict import Difference, Report
from translator.verify.proof import ProofOptions

Build = Callable[[Any], Any]
QUICK = ProofOptions(dtypes=("float64",), probes=False)
HARMLESS = {"bn-statistics", "num_batches_tracked", "flatten-order", "initialiser", "merged"}


def chain(*steps: Build) -> Build:
    def run(x: Any) -> Any:
        for step in steps:
            x = step(x)
        return x

    return run


def audited(module: nn.Module, build: Build, shape: tuple[int, ...]) -> Report:
    """PyTorch's weights in both; every constant vector random, so that nothing is neutral."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(rng.standard_normal(tuple(parameter.shape)).astype(np.float32)))
    inputs = keras.Input(shape)
    model = keras.Model(inputs, build(inputs))
    channels_first = (shape[-1], *shape[:-1]) if len(shape) > 2 else shape
    example = torch.from_numpy(rng.standard_normal((2, *channels_first), dtype=np.float32))
    return translator.audit(module, model, example, options=AuditOptions(weights="ignore", proof=QUICK))


def telling(report: Report) -> list[Difference]:
    return [d for d in report.differences if d.kind not in HARMLESS]


def conv(filters: int = 4, *more: Build, **settings: Any) -> Build:
    return chain(layers.Conv2D(filters, 3, **settings), *more)


def norm(**settings: Any) -> Build:
    return layers.BatchNormalization(**{"epsilon": 1e-5, "momentum": 0.9, **settings})
