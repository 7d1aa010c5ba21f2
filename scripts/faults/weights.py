"""Faults in the numbers: every shape is right, some value is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from scripts.faults.planting import Planted, Right, fault, pick, with_weights

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _layers(right: Right, slot: str, minimum_rank: int = 1) -> list[str]:
    return [
        layer.name
        for layer in right.model.layers
        for w in layer.weights
        if w.name == slot and len(w.shape) >= minimum_rank and right.home.get(layer.name)
    ]


def _variable(model: keras.Model, layer: str, slot: str) -> Any:
    return next(w for w in model.get_layer(layer).weights if w.name == slot)


def _changed(right: Right, rng: np.random.Generator, layers: list[str], slot: str, change: Change) -> Planted | None:
    name = pick(rng, layers)
    if name is None:
        return None
    before = _variable(right.model, name, slot).numpy()
    after = change(before.copy(), rng)
    if np.array_equal(before, after):
        return None
    model = with_weights(right, lambda m: _variable(m, name, slot).assign(after))
    return Planted(model=model, layers=frozenset({right.home[name]}), where=f"{name}/{slot}")


def _one_element(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    index = tuple(int(rng.integers(n)) for n in value.shape)
    value[index] += 1e-4
    return value


_KERNELS: tuple[tuple[str, Change], ...] = (
    ("kernel: one element off by 1e-4", _one_element),
    ("kernel: sign turned", lambda v, _: -v),
    ("kernel: scaled by 1.001", lambda v, _: (v * np.float32(1.001)).astype(v.dtype)),
    ("kernel: all zero", lambda v, _: np.zeros_like(v)),
    ("kernel: through float16", lambda v, _: v.astype(np.float16).astype(v.dtype)),
    ("kernel: a stale checkpoint's", lambda v, rng: rng.standard_normal(v.shape).astype(v.dtype) * v.std()),
    ("kernel: output channels permuted", lambda v, rng: v[..., rng.permutation(v.shape[-1])]),
    ("kernel: input channels reversed", lambda v, _: np.flip(v, axis=-2)),
    ("kernel: a little noise", lambda v, rng: (v * (1 + 1e-3 * rng.standard_normal(v.shape))).astype(v.dtype)),
)


def _register_kernels() -> None:
    for name, change in _KERNELS:

        def plant(right: Right, rng: np.random.Generator, change: Change = change) -> Planted | None:
            return _changed(right, rng, _layers(right, "kernel", 2), "kernel", change)

        fault(name, "weights")(plant)


_register_kernels()


@fault("kernel: rows and columns exchanged", "weights")
def transposed(right: Right, rng: np.random.Generator) -> Planted | None:
    """A square kernel with height and width exchanged."""
    square = [n for n in _layers(right, "kernel", 4) if _variable(right.model, n, "kernel").shape[0] > 1]
    return _changed(right, rng, square, "kernel", lambda v, _: np.swapaxes(v, 0, 1))


@fault("kernel: inputs and outputs exchanged", "weights")
def exchanged_axes(right: Right, rng: np.random.Generator) -> Planted | None:
    """A kernel with as many inputs as outputs, in PyTorch's order of the two."""
    shapes = {n: _variable(right.model, n, "kernel").shape for n in _layers(right, "kernel", 2)}
    same = [n for n, shape in shapes.items() if shape[-1] == shape[-2] > 1]
    return _changed(right, rng, same, "kernel", lambda v, _: np.swapaxes(v, -1, -2))


@fault("dense: rows in PyTorch's flatten order", "weights")
def flatten_order(right: Right, rng: np.random.Generator) -> Planted | None:
    """The kernel behind a flatten not permuted from channels, rows, columns."""
    found = []
    for layer in right.model.layers:
        if type(layer).__name__ != "Dense" or not right.home.get(layer.name):
            continue
        before = layer.input._keras_history.operation
        while "ropout" in type(before).__name__:
            before = before._inbound_nodes[0].input_tensors[0]._keras_history.operation
        image = before._inbound_nodes[0].input_tensors[0].shape if before._inbound_nodes[0].input_tensors else ()
        if len(image) == 4 and image[1] * image[2] > 1 and image[1] * image[2] * image[3] == layer.kernel.shape[0]:
            found.append((layer.name, tuple(image[1:])))
    chosen = pick(rng, found)
    if chosen is None:
        return None
    height, width, channels = chosen[1]

    def unpermuted(value: np.ndarray, _: np.random.Generator) -> np.ndarray:
        return value.reshape(height, width, channels, -1).transpose(2, 0, 1, 3).reshape(value.shape)

    return _changed(right, rng, [chosen[0]], "kernel", unpermuted)


@fault("bias: lost (zeros)", "weights")
def bias_lost(right: Right, rng: np.random.Generator) -> Planted | None:
    """A bias that was not moved."""
    return _changed(right, rng, _layers(right, "bias"), "bias", lambda v, _: np.zeros_like(v))


@fault("BN: scale lost (ones)", "weights")
def scale_lost(right: Right, rng: np.random.Generator) -> Planted | None:
    """A gamma that was not moved."""
    return _changed(right, rng, _layers(right, "gamma"), "gamma", lambda v, _: np.ones_like(v))


@fault("BN: variance as standard deviation", "weights")
def deviation(right: Right, rng: np.random.Generator) -> Planted | None:
    """A square root too many."""
    return _changed(right, rng, _layers(right, "moving_variance"), "moving_variance", lambda v, _: np.sqrt(v))


@fault("BN: channels rotated by one", "weights")
def rotated(right: Right, rng: np.random.Generator) -> Planted | None:
    """The right statistics, one channel further."""
    return _changed(right, rng, _layers(right, "moving_mean"), "moving_mean", lambda v, _: np.roll(v, 1))


def _swapped_slots(right: Right, rng: np.random.Generator, a: str, b: str) -> Planted | None:
    name = pick(rng, _layers(right, a))
    if name is None:
        return None
    values = [_variable(right.model, name, slot).numpy() for slot in (a, b)]

    def change(model: keras.Model) -> None:
        for slot, value in zip((a, b), reversed(values), strict=True):
            _variable(model, name, slot).assign(value)

    return Planted(
        model=with_weights(right, change), layers=frozenset({right.home[name]}), where=f"{name}: {a} and {b}"
    )


@fault("BN: gamma and beta exchanged", "weights")
def gamma_beta(right: Right, rng: np.random.Generator) -> Planted | None:
    """Two of the four vectors exchanged."""
    return _swapped_slots(right, rng, "gamma", "beta")


@fault("BN: mean and variance exchanged", "weights")
def mean_variance(right: Right, rng: np.random.Generator) -> Planted | None:
    """The other two exchanged."""
    return _swapped_slots(right, rng, "moving_mean", "moving_variance")


def _exchanged(right: Right, rng: np.random.Generator, slot: str, rank: int) -> Planted | None:
    names = _layers(right, slot, rank)
    shapes = {n: tuple(_variable(right.model, n, slot).shape) for n in names}
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if shapes[a] == shapes[b]]
    chosen = pick(rng, pairs)
    if chosen is None:
        return None

    def change(model: keras.Model) -> None:
        for here, there in (chosen, chosen[::-1]):
            for weight in model.get_layer(here).weights:
                weight.assign(_variable(right.model, there, weight.name).numpy())

    layers = frozenset(right.home[n] for n in chosen)
    return Planted(model=with_weights(right, change), layers=layers, where=" and ".join(chosen))


@fault("two equal-shaped layers: weights exchanged", "weights")
def layers_exchanged(right: Right, rng: np.random.Generator) -> Planted | None:
    """Two convolutions with each other's weights."""
    return _exchanged(right, rng, "kernel", 2)


@fault("two BatchNorms: weights exchanged", "weights")
def norms_exchanged(right: Right, rng: np.random.Generator) -> Planted | None:
    """Two normalisations with each other's weights."""
    return _exchanged(right, rng, "gamma", 1)
