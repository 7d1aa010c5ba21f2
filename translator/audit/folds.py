"""A BatchNormalization that Keras does not have because it was folded into the convolution before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from translator.audit.bind import Bound, How, kernel_steps
from translator.audit.network import Network, Unit, Weight
from translator.bindings import Piece, WeightBinding, to_keras, to_torch
from translator.types import Layout
from translator.verify.facts import Conv, Dense, Norm, Presence


def absorb_folded_norms(left: Network, right: Network, pairs: Sequence[tuple[int, int]]) -> Network:
    """Given: convolution, then a BatchNorm without a partner, and Keras' convolution has a bias.
    Result: PyTorch's convolution makes what the norm made, and has it absorbed."""
    partner = dict(pairs)
    wiring = left.wiring()
    readers: dict[int, list[int]] = {}
    for unit, row in zip(left.units, wiring, strict=True):
        for source in row:
            readers.setdefault(source, []).append(unit.index)
    units = list(left.units)
    for norm in left.units:
        if norm.index in partner or not isinstance(norm.facts, Norm) or norm.facts.kind != "batch":
            continue
        above = wiring[norm.index]
        if len(above) != 1 or above[0] < 0 or readers.get(above[0]) != [norm.index] or above[0] not in partner:
            continue
        conv, keras = units[above[0]], right.units[partner[above[0]]]
        if isinstance(conv.facts, Conv | Dense) and _has_bias(keras):
            units[conv.index] = replace(conv, outputs=norm.outputs, absorbed=(*conv.absorbed, norm))
    return replace(left, units=tuple(units))


def folded_norm(unit: Unit) -> Unit | None:
    """The norm that is folded into a convolution."""
    return next((a for a in unit.absorbed if a.kind == "norm"), None)


def folded_bindings(t: Unit, k: Unit, norm: Unit, kernel: Weight, bias: Weight, read: Layout | None) -> list[Bound]:
    """Kernel and bias of a convolution that has a BatchNorm inside, computed from PyTorch's tensors."""
    tensor = t.weight("weight")
    steps = kernel_steps(t, k, tensor, kernel, read) if tensor is not None else None
    if tensor is None or steps is None or not isinstance(norm.facts, Norm):
        return []
    epsilon = norm.facts.epsilon
    binding = WeightBinding(variable="kernel", shape=kernel.shape, pieces=(Piece(tensor=tensor.name),), steps=steps)

    def factor(state: Mapping[str, np.ndarray]) -> np.ndarray:
        variance = state[_name(norm, "running_var")].astype(np.float64)
        gamma = state[_name(norm, "weight")].astype(np.float64) if norm.weight("weight") else 1.0
        return np.asarray(gamma / np.sqrt(variance + epsilon))

    def compute_kernel(state: Mapping[str, np.ndarray]) -> np.ndarray:
        weight = state[tensor.name]
        scaled = weight * factor(state).reshape(-1, *[1] * (weight.ndim - 1))
        return to_keras(binding, {tensor.name: scaled}).astype(weight.dtype)

    def compute_bias(state: Mapping[str, np.ndarray]) -> np.ndarray:
        own = t.weight("bias")
        shift = state[own.name].astype(np.float64) if own else 0.0
        beta = state[_name(norm, "bias")].astype(np.float64) if norm.weight("bias") else 0.0
        total = (shift - state[_name(norm, "running_mean")].astype(np.float64)) * factor(state) + beta
        return np.asarray(total).reshape(bias.shape).astype(state[tensor.name].dtype)

    def inverse(value: np.ndarray) -> dict[str, np.ndarray]:
        return to_torch([(binding, value)], {tensor.name: tensor.shape})

    own_bias = t.weight("bias")
    scales = tuple(w.name for w in norm.weights if w.slot in ("weight", "running_var"))
    shifts = tuple(w.name for w in norm.weights if w.slot in ("weight", "bias", "running_mean", "running_var"))
    how: How = "computed"
    common: dict[str, Any] = {"torch_layer": t.path, "keras_layer": k.path, "how": how}
    return [
        Bound(keras=kernel, compute=compute_kernel, inverse=inverse, reads=(tensor.name, *scales), **common),
        Bound(keras=bias, compute=compute_bias, reads=(*((own_bias.name,) if own_bias else ()), *shifts), **common),
    ]


def _name(unit: Unit, slot: str) -> str:
    weight = unit.weight(slot)
    return weight.name if weight is not None else ""


def _has_bias(unit: Unit) -> bool:
    return isinstance(unit.facts, Conv | Dense) and unit.facts.bias is not Presence.NONE
