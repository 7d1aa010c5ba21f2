"""Both sides compute in float64, and are back in float32 afterwards."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn

from tests.unit.verify_pairs import residual_pair
from translator.verify.keras_graph import graph_of
from translator.verify.keras_replay import to_keras, to_numpy
from translator.verify.precision import keras_float64, torch_float64

F64 = np.float64


def test_both_sides_are_back_in_float32_after_an_error(rng: np.random.Generator) -> None:
    pair = residual_pair(rng)
    graph = graph_of(pair.model)
    before = {k: v.clone() for k, v in pair.module.state_dict().items()}
    identity = {id(p) for p in pair.module.parameters()}
    seen = []

    def fail() -> None:
        with keras_float64(graph.operations), torch_float64(pair.module):
            seen.extend([pair.module.fc.weight.dtype, pair.layer("fc").compute_dtype])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [torch.float64, "float64"]
    assert {layer.compute_dtype for layer in pair.model.layers} == {"float32"}
    assert keras.config.floatx() == "float32"
    assert {id(p) for p in pair.module.parameters()} == identity
    assert all(torch.equal(v, before[k]) and v.dtype == before[k].dtype for k, v in pair.module.state_dict().items())


LAYERS = {
    "Conv2D": (lambda: layers.Conv2D(8, 3, groups=2), 4), "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3), 4),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(4, 3, strides=2), 4), "Conv1D": (lambda: layers.Conv1D(4, 3), 3),
    "LSTM": (lambda: layers.LSTM(3), 3), "GRU": (lambda: layers.GRU(3, return_sequences=True), 3),
    "Bidirectional": (lambda: layers.Bidirectional(layers.LSTM(3)), 3),
    "BatchNormalization": (layers.BatchNormalization, 4), "LayerNormalization": (layers.LayerNormalization, 4),
    "GroupNormalization": (lambda: layers.GroupNormalization(2), 4), "PReLU": (layers.PReLU, 4),
    "EinsumDense": (lambda: layers.EinsumDense("bwc,c->bwc", (5, 8)), 3), "Dropout": (lambda: layers.Dropout(0.5), 3),
    "UpSampling2D": (lambda: layers.UpSampling2D(2, interpolation="bilinear"), 4),
    "Resizing": (lambda: layers.Resizing(4, 9), 4), "GELU": (lambda: layers.Activation("gelu"), 3),
    "LeakyReLU": (lambda: layers.LeakyReLU(0.1), 3), "Embedding": (lambda: layers.Embedding(9, 4), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layer_computes_in_float64_and_agrees_with_float32(name: str, rng: np.random.Generator) -> None:
    make, rank = LAYERS[name]
    layer = make()
    numbers = rng.standard_normal((2, 5, 5, 8)[4 - rank :]).astype("float32") if rank else rng.integers(0, 9, (2, 3))
    x = to_keras(numbers, "float32" if rank else "int32")
    layer(x)
    for variable in layer.weights:
        variable.assign(to_numpy(variable.value) + rng.uniform(0.1, 0.3, variable.shape).astype("float32"))
    want = to_numpy(layer(x))
    with keras_float64([layer]):
        got = to_numpy(layer(to_keras(numbers, "float64" if rank else "int32")))
    assert got.dtype == F64
    assert np.allclose(got, want, rtol=1e-5, atol=1e-6)
    if name not in ("Dropout", "Embedding"):
        assert not np.array_equal(got.astype("float32"), got)
    assert to_numpy(layer(x)).dtype == np.float32


class Creating(nn.Module):
    """Tensors made in the forward, of numbers that float32 can and can't hold."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        literal = torch.tensor([0.1, 0.2, 0.3])
        return x + literal, self.fc(torch.ones(1, 3)), torch.full((2,), 0.1), torch.linspace(0, 0.3, 4), torch.arange(3)


def test_what_a_forward_creates_is_of_double_precision_but_literals_stay_the_float32_they_are() -> None:
    module = Creating()
    with torch_float64(module), torch.no_grad():
        added, projected, full, line, whole = module(torch.zeros(1, 3, dtype=torch.float64))
    assert added.tolist() == torch.tensor([[0.1, 0.2, 0.3]]).double().tolist()
    assert projected.dtype is torch.float64
    assert full.tolist() == [0.1, 0.1]
    assert line.tolist() == torch.linspace(0, 0.3, 4, dtype=torch.float64).tolist()
    assert whole.dtype is torch.int64


def test_limits_of_the_float_type_stay_those_of_float32() -> None:
    """A mask filled with the least number of its type is the model's own constant."""
    limits = torch.finfo
    with torch_float64(nn.Linear(1, 1)):
        assert torch.finfo(torch.float64).min == limits(torch.float32).min
        assert torch.finfo(torch.float16).min == limits(torch.float16).min
    assert torch.finfo is limits


@pytest.mark.parametrize("wrong", [True, False])
def test_a_kernel_that_is_wrong_in_float32_alone_is_told(
    wrong: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note: a network that picks among numbers picks others by rounding. But nobody shall overlook it."""
    pair = residual_pair(rng)
    right = layers.Dense.call

    def flipped(layer: layers.Dense, *args: Any, **kwargs: Any) -> Any:
        result = right(layer, *args, **kwargs)
        return keras.ops.flip(result, axis=-1) if layer.compute_dtype == "float32" else result

    if wrong:
        monkeypatch.setattr(layers.Dense, "call", flipped)
    told = [note for note in pair.prove().notes if "in float32 Keras is off by a relative" in note]
    assert len(told) == wrong
    assert all("rounding picks among numbers there, or the backend's float32 is wrong" in note for note in told)
