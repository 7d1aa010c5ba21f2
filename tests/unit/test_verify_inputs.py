"""Inputs to judge with, and weights that are random for a while."""

from __future__ import annotations

import keras
import numpy as np
import torch
from keras import layers

from tests.unit.verify_pairs import residual_pair, value
from translator.claims import Claims
from translator.types import Layout
from translator.verify.claim_index import index_claims
from translator.verify.inputs import first_row, proof_inputs, wide_inputs
from translator.verify.keras_graph import graph_of
from translator.verify.keras_replay import to_numpy
from translator.verify.weights import constant_names, randomised

F64 = np.float64


def index_of(shape: tuple[int | None, ...], layout: Layout, dtype: str = "float32"):  # type: ignore[no-untyped-def]
    x = keras.Input(batch_shape=shape, dtype=dtype, name="x")
    model = keras.Model(x, layers.Identity(name="y")(x))
    return index_claims(Claims(inputs=(value("x", layout),), outputs=(value("y", layout),)), graph_of(model))


def test_example_keeps_its_rows_and_gets_more_like_them(rng: np.random.Generator) -> None:
    index = index_of((None, 4, 4, 3), Layout.channels_last(4))
    example = torch.rand(1, 3, 4, 4) + 5
    (made,), _ = proof_inputs((example,), {}, index, rng, 3)
    assert made.shape == (3, 3, 4, 4)
    assert torch.equal(made[:1], example)
    assert 4 < float(made[1:].mean()) < 7
    (zeros,), _ = proof_inputs((torch.zeros(1, 3, 4, 4),), {}, index, rng, 2)
    assert float(zeros.std()) > 0.5
    (one,), _ = first_row((made,), {}, index)
    assert torch.equal(one, made[:1])
    (broad,), _ = wide_inputs((example,), {}, index, rng, 1)
    assert broad.shape == (1, 3, 4, 4)
    assert float(broad.min()) < 0 < float(broad.max())


def test_integers_stay_in_the_range_of_the_example(rng: np.random.Generator) -> None:
    index = index_of((None, 6), Layout.identity(2), "int32")
    (made,), _ = proof_inputs((torch.tensor([[3, 4, 5, 6, 7, 7]]),), {}, index, rng, 4)
    assert made.shape == (4, 6)
    assert (int(made.min()), int(made.max())) == (3, 7)
    (ones,), _ = proof_inputs((torch.ones(1, 6, dtype=torch.long),), {}, index, rng, 2)
    assert ones.tolist() == [[1] * 6] * 2


def test_fixed_batch_is_kept(rng: np.random.Generator) -> None:
    index = index_of((1, 6), Layout.identity(2))
    (made,), _ = proof_inputs((torch.zeros(1, 6),), {}, index, rng, 4)
    assert made.shape == (1, 6)


def test_constant_tensors_become_random_on_both_sides_and_come_back(rng: np.random.Generator) -> None:
    pair = residual_pair(rng, fresh=True)
    names = constant_names(pair.module, pair.claims)
    assert names == [f"{n}.{t}" for n in ("bn", "block.bn1", "block.bn2") for t in ("weight", "bias")] + [
        f"{n}.{t}" for n in ("bn", "block.bn1", "block.bn2") for t in ("running_mean", "running_var")
    ]
    before = [to_numpy(v.value) for v in pair.model.weights]
    with randomised(pair.module, pair.model, pair.load, names, pair.claims, 0):
        var = pair.module.bn.running_var
        assert float(var.min()) > 0
        assert float(var.std()) > 0
        assert np.array_equal(to_numpy(pair.variable("bn", "moving_variance").value), var.numpy())
    assert pair.module.bn.running_var.tolist() == [1.0] * 6
    assert all(np.array_equal(a, to_numpy(v.value)) for a, v in zip(before, pair.model.weights, strict=True))
