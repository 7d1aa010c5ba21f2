"""The books: every tensor and every variable accounted for."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers
from torch import nn

from translator.claims import Claims, ParameterClaim
from translator.verify import ledger as books

F64 = np.float64


def test_one_tensor_cut_into_two_variables_is_booked_in_parts(rng: np.random.Generator) -> None:
    module = nn.Linear(3, 4, bias=False)
    x = keras.Input((3,), name="x")
    parts = [layers.Dense(2, use_bias=False, name=n)(x) for n in ("a", "b")]
    model = keras.Model(x, parts)
    weight = module.weight.detach().numpy()
    for name, rows in (("a", weight[:2]), ("b", weight[2:])):
        model.get_layer(name).kernel.assign(rows.T)

    def book(**counts: int) -> books.Ledger:
        claims = tuple(
            ParameterClaim(layer=n, variable="kernel", tensors=("weight",), counts=(c,)) for n, c in counts.items()
        )
        return books.keep_books(module, model, Claims(inputs=(), outputs=(), parameters=claims))

    right = book(a=6, b=6)
    assert (right.wrong, books.balance(right).unexplained) == ({}, 0)
    assert "only in part" in str(book(a=6).wrong)
    assert "more than once" in str(book(a=12, b=12).wrong)
    model.get_layer("b").kernel.assign(weight[:2].T)
    assert "does not hold the numbers of weight" in str(book(a=6, b=6).wrong)


def test_variable_that_no_tensor_explains_leaves_the_balance_open() -> None:
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Dense(2, name="fc")(x))
    module = nn.Linear(3, 2, bias=False)
    model.get_layer("fc").kernel.assign(module.weight.detach().numpy().T)
    kernel = ParameterClaim(layer="fc", variable="kernel", tensors=("weight",))
    open_books = books.keep_books(module, model, Claims(inputs=(), outputs=(), parameters=(kernel,)))
    assert books.balance(open_books).unexplained == 2
    assert "belongs to no PyTorch tensor" in open_books.wrong["fc"]
    bias = ParameterClaim(layer="fc", variable="bias", tensors=(), how="constant")
    closed = books.keep_books(module, model, Claims(inputs=(), outputs=(), parameters=(kernel, bias)))
    assert books.balance(closed).unexplained == 0
    assert [(g.reason, g.count) for g in books.balance(closed).gaps] == [("biases that only Keras has", 2)]
    assert closed.wrong == {}


def test_random_generators_are_no_weights() -> None:
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Dropout(0.5)(x))
    ledger = books.keep_books(nn.Dropout(0.5), model, Claims(inputs=(), outputs=()))
    assert (books.balance(ledger).keras_total, ledger.wrong) == (0, {})
