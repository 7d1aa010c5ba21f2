"""Layouts: what an op does to one is what numpy does to the tensor."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from translator.layout.permutation import dropped, in_place, inserted, reshaped, transposed
from translator.types import Layout

SIZES = st.lists(st.sampled_from([1, 2, 3, 5]), min_size=1, max_size=5).map(tuple)


def laid_out(tensor: np.ndarray, layout: Layout) -> np.ndarray:
    return np.transpose(tensor, layout.axes)


def some_layout(data: st.DataObject, rank: int) -> Layout:
    return Layout(axes=tuple(data.draw(st.permutations(range(rank)))))


@given(st.data(), SIZES)
def test_a_transpose_moves_nothing_in_memory(data: st.DataObject, shape: tuple[int, ...]) -> None:
    x = np.arange(math.prod(shape)).reshape(shape)
    layout = some_layout(data, x.ndim)
    perm = tuple(data.draw(st.permutations(range(x.ndim))))
    np.testing.assert_array_equal(laid_out(x.transpose(perm), transposed(layout, perm)), laid_out(x, layout))


@given(st.data(), SIZES)
def test_axes_are_in_place_where_a_reshape_moves_them(data: st.DataObject, shape: tuple[int, ...]) -> None:
    x = np.arange(math.prod(shape)).reshape(shape)
    before, after = some_layout(data, x.ndim), some_layout(data, x.ndim)
    moved = laid_out(x, after)
    same = np.array_equal(laid_out(x, before).reshape(moved.shape), moved)
    assert in_place(before.axes, after.axes, shape) is same


@given(st.data(), SIZES)
def test_dropped_axes_are_the_ones_that_numpy_drops(data: st.DataObject, shape: tuple[int, ...]) -> None:
    x = np.arange(math.prod(shape)).reshape(shape)
    layout = some_layout(data, x.ndim)
    axes = data.draw(st.sets(st.integers(0, x.ndim - 1), max_size=x.ndim - 1))
    want = laid_out(x.sum(axis=tuple(axes)), dropped(layout, sorted(axes)))
    got = laid_out(x, layout).sum(axis=tuple(layout.axis(a) for a in axes))
    np.testing.assert_array_equal(got, want)


@given(st.data(), SIZES)
def test_an_inserted_axis_keeps_the_order_of_the_others(data: st.DataObject, shape: tuple[int, ...]) -> None:
    x = np.arange(math.prod(shape)).reshape(shape)
    layout = some_layout(data, x.ndim)
    axis = data.draw(st.integers(0, x.ndim))
    result = laid_out(np.expand_dims(x, axis), inserted(layout, [axis]))
    np.testing.assert_array_equal(result.reshape(-1), laid_out(x, layout).reshape(-1))


@given(SIZES, st.integers(0, 4))
def test_identity_stays_identity_when_an_axis_is_inserted(shape: tuple[int, ...], axis: int) -> None:
    assume(axis <= len(shape))
    assert inserted(Layout.identity(len(shape)), [axis]).is_identity


@given(st.data(), SIZES)
def test_a_reshape_called_free_moves_nothing_in_memory(data: st.DataObject, shape: tuple[int, ...]) -> None:
    x = np.arange(math.prod(shape)).reshape(shape)
    layout = some_layout(data, x.ndim)
    target = data.draw(factorisations(math.prod(shape)))
    free = reshaped(layout, shape, target)
    assume(free is not None)
    assert free is not None
    assert sorted(free.axes) == list(range(len(target)))
    result = laid_out(x.reshape(target), free)
    np.testing.assert_array_equal(result.reshape(-1), laid_out(x, layout).reshape(-1))


@st.composite
def factorisations(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """A random shape with `size` elements."""
    dims: list[int] = []
    while size > 1:
        factor = draw(st.sampled_from([d for d in range(2, size + 1) if size % d == 0]))
        dims.append(factor)
        size //= factor
    for _ in range(draw(st.integers(0, 2))):
        dims.insert(draw(st.integers(0, len(dims))), 1)
    return tuple(dims) or (1,)


def test_a_flattened_image_is_free_only_where_one_channel_or_one_pixel_is_left() -> None:
    nhwc = Layout.channels_last(4)
    assert reshaped(nhwc, (2, 8, 1, 1), (2, 8)) == Layout.identity(2)
    assert reshaped(nhwc, (2, 1, 4, 4), (2, 16)) == Layout.identity(2)
    assert reshaped(nhwc, (2, 8, 4, 4), (2, 128)) is None
    assert reshaped(nhwc, (2, 8, 4, 4), (2, 8, 16)) == Layout(axes=(0, 2, 1))
