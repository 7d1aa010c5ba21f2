"""How two arrays are compared, and how one is laid out like the other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from translator.types import Layout
from translator.verify.compare import compare, lay_out
from translator.verify.findings import Book, Entry, Limits

F64 = np.float64


@pytest.mark.parametrize(
    ("got", "want", "words"),
    [
        (np.zeros(3), np.zeros((1, 3)), "shape"),
        (np.zeros((1, 3)), np.ones((3, 1)), "shape"),
        (np.zeros(3, np.float32), np.zeros(3), "computed in float32"),
        (np.zeros(3, np.int32), np.zeros(3), "dtype"),
        (np.zeros(3, bool), np.zeros(3, np.int64), "dtype"),
        (np.zeros(0), np.zeros(0), "empty"),
        (np.array([1.0, np.nan]), np.array([1.0, 2.0]), "NaN or infinity at 1"),
        (np.array([1.0, 2.0]), np.array([1.0, np.nan]), "NaN or infinity at 1"),
        (np.array([1.0, np.inf]), np.array([1.0, -np.inf]), "NaN or infinity at 1"),
        (np.array([np.nan, np.inf]), np.array([np.inf, np.nan]), "NaN or infinity at 2"),
        (np.array([1, 2], np.int32), np.array([1, 3]), "1 of 2 whole numbers"),
        (np.array([True]), np.array([False]), "1 of 1 whole numbers"),
    ],
)
def test_what_can_not_be_compared_is_never_within_a_limit(got: np.ndarray, want: np.ndarray, words: str) -> None:
    outcome = compare(got, want)
    assert words in outcome.problem
    assert not outcome.within(math.inf)


def test_nan_and_infinity_in_the_same_places_are_equal() -> None:
    array = np.array([1.0, np.nan, np.inf, -np.inf, 2.0])
    assert compare(array, array.copy()).within(0)
    everywhere = compare(np.full(3, np.nan), np.full(3, np.nan))
    assert everywhere.within(0)
    assert not everywhere.informative


def test_error_is_relative_to_the_largest_value_wanted() -> None:
    outcome = compare(np.array([100.0, 1.5]), np.array([100.0, 1.0]))
    assert (outcome.error, outcome.max_abs) == (0.005, 0.5)
    assert compare(np.array([0.1]), np.array([0.0])).error == math.inf
    assert compare(np.array([0.1]), np.array([0.0]), scale=10.0).error == 0.01


def test_integers_of_any_width_are_compared_exactly() -> None:
    big = 2**53 + 1
    assert compare(np.array([big, 3]), np.array([big, 3])).within(0)
    assert compare(np.array([7], np.int32), np.array([7])).within(0)
    assert not compare(np.array([big]), np.array([big - 1])).within(1)


@pytest.mark.parametrize(
    ("array", "informative"), [([1.0, 1.0], False), ([0.0, 0.0], False), ([1.0], True), ([1.0, 2.0], True)]
)
def test_constant_reference_is_not_informative(array: list[float], informative: bool) -> None:
    assert compare(np.array(array), np.array(array)).informative is informative


@given(st.permutations(range(4)), st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_layout_without_a_view_is_the_permutation(axes: list[int], shape: list[int]) -> None:
    tensor = torch.arange(math.prod(shape)).reshape(shape)
    laid_out = lay_out(tensor, Layout(axes=tuple(axes)), ())
    assert np.array_equal(laid_out, tensor.numpy().transpose(axes))
    assert laid_out.shape == Layout(axes=tuple(axes)).keras_shape(shape)


def test_layout_with_a_view_flattens_in_the_other_order() -> None:
    image = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    layout = Layout(axes=(0, 2, 3, 1), view=(None, 3, 4, 5))
    assert np.array_equal(
        lay_out(image.flatten(1), layout, (None, 60)), image.numpy().transpose(0, 2, 3, 1).reshape(2, 60)
    )
    pooled = lay_out(torch.ones(2, 3, 1, 1), Layout(axes=(0, 1), view=(None, 3)), (None, 3))
    assert pooled.shape == (2, 3)
    open_rows = Layout(axes=(0, 2, 3, 1), view=(None, 3, None, 5))
    assert np.array_equal(
        lay_out(image.flatten(1), open_rows, (None, 60)), lay_out(image.flatten(1), layout, (None, 60))
    )
    with pytest.raises(ValueError, match="can't be seen as"):
        lay_out(image.flatten(1), Layout(axes=(0, 2, 3, 1), view=(None, 3, None, None)), (None, 60))
    with pytest.raises(ValueError, match="can't be seen as"):
        lay_out(image.flatten(1), Layout(axes=(0, 1, 2), view=(None, 7, 5)), (None, 60))


@pytest.mark.parametrize(("output", "right"), [(np.arange(4.0), True), (np.ones(4), False)])
def test_a_call_is_proven_by_what_varies_along_the_chain_too(output: np.ndarray, right: bool) -> None:
    """A container of which a mask of ones was compared alone, and the output in the whole model's run (DeBERTa)."""
    book, key = Book(), ("encoder", 0)
    book.entries[key] = Entry(key=key, type="Encoder", depth=0, shape=(4,), leaf=False)
    book.alone(key, "float64", "its input", compare(np.ones(4), np.ones(4)))
    book.chain(key, "float64", "its output", compare(output, output))
    limits = Limits(by_dtype={"float64": 1e-9})
    assert (book.entries[key].wrong(limits) == "") is right
    book.chain(key, "float64", "its input", compare(np.arange(4.0), np.arange(4.0)))
    book.alone(key, "float64", "its input 1", compare(np.arange(4.0), np.arange(4.0)))
    assert (book.entries[key].wrong(limits) == "") is right
