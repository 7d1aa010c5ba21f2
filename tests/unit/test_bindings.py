"""Weight bindings: forward, and back bit for bit wherever there is a way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from translator.bindings import Fold, Permute, Piece, Reshape, WeightBinding, to_keras, to_torch
from translator.errors import InternalError

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


@given(st.data(), SHAPES)
def test_permutes_and_reshapes_come_back_bit_for_bit(data: st.DataObject, shape: tuple[int, ...]) -> None:
    axes = tuple(data.draw(st.permutations(range(len(shape)))))
    moved = tuple(shape[a] for a in axes)
    flat = (int(np.prod(moved)),)
    binding = WeightBinding(
        variable="kernel",
        shape=flat,
        pieces=(Piece(tensor="w"),),
        steps=(Permute(axes=axes), Reshape(before=moved, after=flat)),
    )
    want = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    back = to_torch([(binding, to_keras(binding, {"w": want}))], {"w": shape})
    np.testing.assert_array_equal(back["w"], want, strict=True)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
def test_a_packed_tensor_is_put_together_from_its_regions(first: int, second: int, width: int) -> None:
    packed = np.random.default_rng(0).random((first + second, width)).astype(np.float32)
    regions = [((0, first), (0, width)), ((first, first + second), (0, width))]
    bindings = [
        WeightBinding(
            variable="kernel", shape=(width, b - a), pieces=(Piece(tensor="in_proj", region=((a, b), (c, d))),),
            steps=(Permute(axes=(1, 0)),),
        )
        for (a, b), (c, d) in regions
    ]  # fmt: skip
    values = [(b, to_keras(b, {"in_proj": packed})) for b in bindings]
    np.testing.assert_array_equal(to_torch(values, {"in_proj": packed.shape})["in_proj"], packed, strict=True)
    assert to_torch(values[:1], {"in_proj": packed.shape}) == {}, "a tensor covered in part is left out"


def test_gates_are_reordered_by_joining_pieces_and_come_back() -> None:
    weight = np.arange(12, dtype=np.float32).reshape(6, 2)
    pieces = tuple(Piece(tensor="w", region=((a, a + 2), (0, 2))) for a in (2, 0, 4))
    binding = WeightBinding(variable="kernel", shape=(6, 2), pieces=pieces)
    got = to_keras(binding, {"w": weight})
    np.testing.assert_array_equal(got, weight[[2, 3, 0, 1, 4, 5]])
    np.testing.assert_array_equal(to_torch([(binding, got)], {"w": (6, 2)})["w"], weight)


def test_a_sum_has_no_way_back() -> None:
    binding = WeightBinding(variable="bias", shape=(2,), pieces=(Piece(tensor="a"), Piece(tensor="b")), join="sum")
    got = to_keras(binding, {"a": np.ones(2, np.float32), "b": np.full(2, 2, np.float32)})
    np.testing.assert_array_equal(got, [3, 3])
    assert not binding.invertible
    assert to_torch([(binding, got)], {"a": (2,), "b": (2,)}) == {}


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_fold_is_the_convolution_followed_by_the_norm(depthwise: bool) -> None:
    rng = np.random.default_rng(1)
    shape = (3, 3, 2, 2) if depthwise else (3, 3, 5, 4)
    names = {"gamma": "g", "beta": "b", "mean": "m", "variance": "v"}
    state = {n: rng.random(4).astype(np.float32) + 0.1 for n in "gbmv"} | {"w": rng.random(shape).astype(np.float32)}
    fold = Fold(role="kernel", epsilon=1e-5, axes=2 if depthwise else 1, **names)
    kernel = to_keras(WeightBinding(variable="kernel", shape=shape, pieces=(Piece(tensor="w"),), fold=fold), state)
    bias_fold = Fold(role="bias", epsilon=1e-5, **names)
    bias = to_keras(WeightBinding(variable="bias", shape=(4,), fold=bias_fold), state)
    scale = state["g"].astype(float) / np.sqrt(state["v"].astype(float) + 1e-5)
    np.testing.assert_allclose(kernel, state["w"] * scale.reshape(shape[-2:] if depthwise else (4,)), rtol=1e-6)
    np.testing.assert_allclose(bias, state["b"] - state["m"] * scale, rtol=1e-5)


def test_a_binding_that_gives_another_shape_is_our_bug() -> None:
    binding = WeightBinding(variable="kernel", shape=(3,), pieces=(Piece(tensor="w"),))
    with pytest.raises(InternalError, match=r"gives shape \(2,\), want \(3,\)"):
        to_keras(binding, {"w": np.zeros(2, np.float32)})
